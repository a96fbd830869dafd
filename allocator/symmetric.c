/* SPDX-License-Identifier: Apache-2.0 */
/* The C face of the symmetric region and of scopes. */
#include "allocator/memory.h"
#include "allocator/sympool.h"
#include "pool/base/status.h"
#include "pool/scope.h"

#include <string.h>

/* Attached, and with a symmetric region: entered, the caller leaves. */
static struct world *enter_region(const char *call) {
    struct world *w;
    if (process_enter(call, &w) != SYP_OK) return NULL;
    if (w->pool->region.meta) return w;
    process_leave();
    err_set(SYP_EUNSUPPORTED, "%s: meta_size is 0, so there is no symmetric region; raise SYMPOOL_META_SIZE or the meta_size argument of "
                              "syp_init", call);
    err_operation(call);
    return NULL;
}

static uint32_t scope_index(void) {
    const struct scope *s = scope_current();
    return s ? s->index : 0;
}

static void *symm_agreed(const char *call, size_t align, size_t len, int zero) {
    struct world *w = enter_region(call);
    if (!w) return NULL;
    /* below the grain every alignment is the same; an illegal one is refused on every rank, by the agreement */
    if (is_pow2(align) && align < SPACE_GRAIN) align = SPACE_GRAIN;
    uint64_t off = coll_symm_alloc(&w->coll, len, align, scope_index());
    void *p = off == SPACE_NONE ? NULL : region_at(&w->pool->region, off);
    if (p && zero) memset(p, 0, len);
    process_leave();
    if (!p) err_operation(call);
    return p;
}

void *syp_symm_malloc(size_t len) {
    return symm_agreed("symm_malloc", SPACE_GRAIN, len, 0);
}

void *syp_symm_aligned_alloc(size_t align, size_t len) {
    return symm_agreed("symm_aligned_alloc", align, len, 0);
}

void *syp_symm_calloc(size_t n, size_t len) {
    size_t bytes;
    if (__builtin_mul_overflow(n, len, &bytes)) bytes = SIZE_MAX; /* refused by the agreement, on every rank */
    return symm_agreed("symm_calloc", SPACE_GRAIN, bytes, 1);
}

void *syp_symm_malloc_local(size_t len) {
    struct world *w = enter_region("symm_malloc_local");
    if (!w) return NULL;
    void *p = NULL;
    if (len == 0 || len > PTRDIFF_MAX)
        err_set(SYP_EINVAL, "symm_malloc_local: length %zu is outside 1 .. PTRDIFF_MAX", len);
    else
        p = symm_alloc(&w->pool->symm, len, SPACE_GRAIN, scope_index());
    process_leave();
    if (!p) err_operation("symm_malloc_local");
    return p;
}

int syp_symm_free(void *p) {
    struct world *w;
    int rc = process_enter("symm_free", &w);
    if (rc != SYP_OK) return rc;
    if (!p)
        rc = SYP_OK;
    else if (region_contains(&w->pool->region, p) && region_offset(&w->pool->region, p) < w->pool->region.meta)
        rc = symm_free(&w->pool->symm, p);
    else
        rc = err_set(SYP_EFOREIGN, "symm_free: %p is not in the symmetric region of this rank", p);
    process_leave();
    if (rc != SYP_OK) err_operation("symm_free");
    return rc;
}

/* -------------------------------------------------------------------------------------------------- scopes */

int syp_scope_begin(syp_pool_id id, const syp_scope_attr *attr) {
    struct world *w;
    int rc = process_need("scope_begin", &w);
    if (rc != SYP_OK) return rc;
    int kind = SYP_SCOPE_HEAP;
    if (attr && attr->size < sizeof *attr)
        rc = err_set(SYP_EINVAL, "scope_begin: attr->size is %zu, expected %zu", attr->size, sizeof *attr);
    else if (attr)
        kind = attr->kind;
    if (rc == SYP_OK && kind != SYP_SCOPE_HEAP && kind != SYP_SCOPE_SYMMETRIC)
        rc = err_set(SYP_EINVAL, "scope_begin: kind %d is neither SYP_SCOPE_HEAP nor SYP_SCOPE_SYMMETRIC", kind);
    if (rc == SYP_OK) rc = scope_begin(id, kind);
    if (rc != SYP_OK) err_operation("scope_begin");
    return rc;
}

int syp_scope_end(syp_pool_id id) {
    struct world *w;
    int rc = process_usable("scope_end");
    if (rc == SYP_OK) rc = scope_end(id); /* also of a scope that was begun before a finalize in another thread */
    if (rc != SYP_OK) err_operation("scope_end");
    if (rc == SYP_ESTATE && !process_world()) (void)process_need("scope_end", &w); /* the more helpful text */
    return rc;
}
