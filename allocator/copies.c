/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Other copies of this library in the process: a second file with another path, a private one of a Python package, the archive inside the program
 * and the shared object beside it.  Each has its own idea of the job, so only one may attach.
 *
 * Copies cannot see each other's symbols (RTLD_LOCAL), so each carries an ELF note with the distance to a word that says whether it is in
 * use, and the dynamic loader's list of objects leads to all notes.
 */
#include "allocator/process.h"
#include "pool/base/status.h"
#include "pool/base/text.h"

#include <link.h>
#include <string.h>

#define NOTE_NAME "sympool"
#define NOTE_TYPE 1

/* 1 while this copy attaches, is attached or detaches; seq_cst: copies_claim.  Its place is in the note. */
__attribute__((visibility("hidden"), used)) atom32 syp_copy_in_use;

__asm__(".pushsection .note.sympool, \"a\", %note\n"
        ".balign 4\n"
        ".long 8\n" /* name and its NUL */
        ".long 8\n"
        ".long 1\n"
        ".asciz \"" NOTE_NAME "\"\n"
        ".balign 4\n"
        ".quad syp_copy_in_use - .\n"
        ".popsection\n");

/* The word of the copy that has this note; NULL = the note is not ours. */
static const atom32 *word_of(const ElfW(Nhdr) * note, const char *end) {
    const char *name = (const char *)(note + 1);
    int64_t distance;
    if (note->n_namesz != sizeof NOTE_NAME || note->n_descsz != sizeof distance || note->n_type != NOTE_TYPE) return NULL;
    if (name + sizeof NOTE_NAME + sizeof distance > end || memcmp(name, NOTE_NAME, sizeof NOTE_NAME) != 0) return NULL;
    memcpy(&distance, name + sizeof NOTE_NAME, sizeof distance);
    return (const atom32 *)((uintptr_t)(name + sizeof NOTE_NAME) + (uintptr_t)distance);
}

static uint64_t padded(uint32_t len) {
    return round_up(len, 4);
}

/* dl_iterate_phdr: 1 = another copy is in use, whose file is copied to the text. */
static int look(struct dl_phdr_info *object, size_t size, void *file) {
    (void)size;
    for (int i = 0; i < object->dlpi_phnum; i++) {
        const ElfW(Phdr) *part = &object->dlpi_phdr[i];
        if (part->p_type != PT_NOTE || part->p_align > 4) continue;
        const char *at = (const char *)(object->dlpi_addr + part->p_vaddr), *end = at + part->p_memsz;
        while (at + sizeof(ElfW(Nhdr)) <= end) {
            const ElfW(Nhdr) *note = (const ElfW(Nhdr) *)(const void *)at;
            const atom32 *word = word_of(note, end);
            if (word && word != &syp_copy_in_use && load_seqcst((atom32 *)(uintptr_t)word)) {
                const char *name = object->dlpi_name;
                text_addf(file, "%s", name && name[0] ? name : "the program itself");
                return 1;
            }
            at += sizeof *note + padded(note->n_namesz) + padded(note->n_descsz);
        }
    }
    return 0;
}

int copies_claim(void) {
    char file[512] = "";
    struct text t = TEXT_INIT(file);
    store_seqcst(&syp_copy_in_use, 1); /* first say, then look: of two that attach at once at least one sees the other */
    if (!dl_iterate_phdr(look, &t)) return SYP_OK;
    store_seqcst(&syp_copy_in_use, 0);
    return err_set(SYP_ESTATE, "init: another copy of this library in this process is attached: %s; load one copy (same file, same path)", file);
}

void copies_release(void) {
    store_seqcst(&syp_copy_in_use, 0); /* pairs with look */
}
