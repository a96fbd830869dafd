/* SPDX-License-Identifier: Apache-2.0 */
/* Keys and MACs of a connection: what one end seals, only the other end accepts, once, in order, as it was. */
#include "bootstrap/auth.h"
#include "pool/base/conf.h"
#include "pool/base/os.h"
#include "pool/base/status.h"
#include "tests/support/check.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

static char path[] = "/tmp/sympool-auth-XXXXXX";

static void new_secret(int value) {
    char bytes[SECRET_LEN];
    memset(bytes, value, sizeof bytes);
    int fd = open(path, O_WRONLY | O_TRUNC | O_CLOEXEC);
    CHECK(fd >= 0 && write(fd, bytes, sizeof bytes) == sizeof bytes);
    close(fd);
}

/* Two ends of one connection; session 1 of rank 0, 0 of the rank. */
struct ends {
    struct auth *root, *rank;
};

static struct ends connect_ends(int secret_of_root, int secret_of_rank) {
    struct ends e;
    uint8_t a[WIRE_NONCE], b[WIRE_NONCE];
    new_secret(secret_of_root);
    CHECK_EQ(auth_open(path, 3, &e.root), SYP_OK);
    new_secret(secret_of_rank);
    CHECK_EQ(auth_open(path, 1, &e.rank), SYP_OK);
    CHECK_EQ(auth_nonce(e.root, 1, a), 0);
    CHECK_EQ(auth_nonce(e.rank, 0, b), 0);
    CHECK(memcmp(a, b, sizeof a) != 0);
    auth_begin(e.root, 1, AUTH_ROOT, b);
    auth_begin(e.rank, 0, AUTH_RANK, a);
    return e;
}

static void disconnect(struct ends *e) {
    auth_close(e->root);
    auth_close(e->rank);
}

static uint8_t head[WIRE_HEAD] = "head", payload[100] = "payload";

static void what_one_end_seals_the_other_accepts(void) {
    struct ends e = connect_ends(1, 1);
    uint8_t mac[WIRE_MAC];
    for (size_t len = 0; len <= sizeof payload; len++) {
        auth_seal(e.rank, 0, head, payload, len, mac);
        CHECK(auth_check(e.root, 1, head, payload, len, mac));
        auth_seal(e.root, 1, head, payload, len, mac);
        CHECK(auth_check(e.rank, 0, head, payload, len, mac));
    }
    disconnect(&e);
}

static void another_secret_is_recognised(void) {
    struct ends e = connect_ends(1, 2);
    uint8_t mac[WIRE_MAC];
    auth_seal(e.rank, 0, head, payload, 9, mac);
    CHECK(!auth_check(e.root, 1, head, payload, 9, mac));
    auth_seal(e.root, 1, head, payload, 9, mac);
    CHECK(!auth_check(e.rank, 0, head, payload, 9, mac));
    disconnect(&e);
}

static void every_changed_bit_is_recognised(void) {
    uint8_t mac[WIRE_MAC], changed_head[WIRE_HEAD], changed[20];
    for (size_t bit = 0; bit < 8 * (WIRE_HEAD + sizeof changed + WIRE_MAC); bit++) {
        struct ends e = connect_ends(1, 1);
        memcpy(changed_head, head, sizeof head);
        memcpy(changed, payload, sizeof changed);
        auth_seal(e.rank, 0, head, payload, sizeof changed, mac);
        size_t byte = bit / 8;
        uint8_t *p = byte < WIRE_HEAD                    ? &changed_head[byte]
                     : byte < WIRE_HEAD + sizeof changed ? &changed[byte - WIRE_HEAD]
                                                         : &mac[byte - WIRE_HEAD - sizeof changed];
        *p ^= (uint8_t)(1u << bit % 8);
        CHECK(!auth_check(e.root, 1, changed_head, changed, sizeof changed, mac));
        disconnect(&e);
    }
}

static void a_replayed_frame_is_recognised(void) {
    struct ends e = connect_ends(1, 1);
    uint8_t one[WIRE_MAC], two[WIRE_MAC];
    auth_seal(e.rank, 0, head, payload, 9, one);
    auth_seal(e.rank, 0, head, payload, 9, two);
    CHECK(memcmp(one, two, sizeof one) != 0);
    CHECK(auth_check(e.root, 1, head, payload, 9, one));
    CHECK(!auth_check(e.root, 1, head, payload, 9, one)); /* again */
    disconnect(&e);
    e = connect_ends(1, 1);
    CHECK(!auth_check(e.root, 1, head, payload, 9, one)); /* on another connection */
    disconnect(&e);
    e = connect_ends(1, 1);
    auth_seal(e.rank, 0, head, payload, 9, one);
    auth_seal(e.rank, 0, head, payload, 9, two);
    CHECK(!auth_check(e.root, 1, head, payload, 9, two)); /* out of order */
    disconnect(&e);
}

static void a_reflected_frame_is_recognised(void) {
    struct ends e = connect_ends(1, 1);
    uint8_t mac[WIRE_MAC], nonce[WIRE_NONCE];
    auth_seal(e.rank, 0, head, payload, 9, mac);
    CHECK(!auth_check(e.rank, 0, head, payload, 9, mac));
    CHECK_EQ(auth_nonce(e.rank, 0, nonce), 0);
    auth_begin(e.rank, 0, AUTH_RANK, nonce); /* its own greeting came back, too */
    auth_seal(e.rank, 0, head, payload, 9, mac);
    CHECK(!auth_check(e.rank, 0, head, payload, 9, mac));
    disconnect(&e);
}

static void connections_have_keys_of_their_own(void) {
    struct ends e = connect_ends(1, 1);
    uint8_t mac[WIRE_MAC], nonce[WIRE_NONCE], theirs[WIRE_NONCE] = {1};
    CHECK_EQ(auth_nonce(e.root, 2, nonce), 0);
    auth_begin(e.root, 2, AUTH_ROOT, theirs);
    auth_seal(e.rank, 0, head, payload, 9, mac);
    CHECK(!auth_check(e.root, 2, head, payload, 9, mac));
    CHECK(auth_check(e.root, 1, head, payload, 9, mac));
    disconnect(&e);
}

/* A whole join is played again, to either side: its own nonce is fresh, so nothing of it counts. */
static void a_recorded_join_is_recognised(void) {
    struct ends e = connect_ends(1, 1);
    uint8_t of_rank[WIRE_NONCE], of_root[WIRE_NONCE], fresh[WIRE_NONCE], to_root[WIRE_MAC], to_rank[WIRE_MAC];
    CHECK_EQ(auth_nonce(e.root, 1, of_root), 0);
    CHECK_EQ(auth_nonce(e.rank, 0, of_rank), 0);
    auth_begin(e.root, 1, AUTH_ROOT, of_rank);
    auth_begin(e.rank, 0, AUTH_RANK, of_root);
    auth_seal(e.rank, 0, head, payload, 9, to_root);
    auth_seal(e.root, 1, head, payload, 9, to_rank);
    CHECK(auth_check(e.root, 1, head, payload, 9, to_root));
    CHECK_EQ(auth_nonce(e.root, 2, fresh), 0);
    auth_begin(e.root, 2, AUTH_ROOT, of_rank);
    CHECK(!auth_check(e.root, 2, head, payload, 9, to_root));
    CHECK_EQ(auth_nonce(e.rank, 0, fresh), 0);
    auth_begin(e.rank, 0, AUTH_RANK, of_root);
    CHECK(!auth_check(e.rank, 0, head, payload, 9, to_rank));
    disconnect(&e);
}

/* Flags of the mapping that holds p, from /proc/self/smaps; 1 = has the flag. */
static int mapping_has(const void *p, const char *flag) {
    FILE *f = fopen("/proc/self/smaps", "r");
    char line[512];
    int here = 0, found = 0;
    while (f && fgets(line, sizeof line, f)) {
        unsigned long from, to;
        if (sscanf(line, "%lx-%lx ", &from, &to) == 2) here = (uintptr_t)p >= from && (uintptr_t)p < to;
        if (here && strncmp(line, "VmFlags:", 8) == 0) found = strstr(line, flag) != NULL;
    }
    if (f) fclose(f);
    return found;
}

static void the_secret_stays_out_of_dumps_and_children(void) {
    struct ends e = connect_ends(7, 7);
    CHECK(mapping_has(e.root, " dd"));
    CHECK(mapping_has(e.root, " wf"));
    pid_t pid = fork();
    if (pid == 0) {
        const uint8_t *p = (const uint8_t *)e.root;
        for (size_t i = 0; i < 64; i++)
            if (p[i]) _exit(1);
        _exit(0);
    }
    int status;
    waitpid(pid, &status, 0);
    CHECK_EQ(status, 0);
    disconnect(&e);
}

/* What is given back to the system was wiped before. */
static int wiped_to_the_end, unmapped;
static int watch_unmap(void *addr, size_t len) {
    unmapped++;
    for (size_t i = 0; i < len; i++)
        if (((uint8_t *)addr)[i]) wiped_to_the_end = 0;
    return os_linux.unmap(addr, len);
}

static void the_secret_is_wiped(void) {
    struct ends e = connect_ends(7, 7);
    struct os_ops table = os_linux;
    table.unmap = watch_unmap;
    wiped_to_the_end = 1;
    const struct os_ops *old = os_swap(&table);
    disconnect(&e);
    os_swap(old);
    CHECK(wiped_to_the_end);
    CHECK_EQ(unmapped, 2);
}

int main(void) {
    const char *build = getenv("B");
    char dir[1024];
    snprintf(dir, sizeof dir, "%s/modules", build && *build ? build : "build");
    setenv("SYMPOOL_MODULE_DIR", dir, 1);
    close(mkstemp(path));
    int rc = check_main("auth",
                        (struct check_test[]){
                            {"what_one_end_seals_the_other_accepts", what_one_end_seals_the_other_accepts},
                            {"another_secret_is_recognised", another_secret_is_recognised},
                            {"every_changed_bit_is_recognised", every_changed_bit_is_recognised},
                            {"a_replayed_frame_is_recognised", a_replayed_frame_is_recognised},
                            {"a_reflected_frame_is_recognised", a_reflected_frame_is_recognised},
                            {"connections_have_keys_of_their_own", connections_have_keys_of_their_own},
                            {"a_recorded_join_is_recognised", a_recorded_join_is_recognised},
                            {"the_secret_stays_out_of_dumps_and_children", the_secret_stays_out_of_dumps_and_children},
                            {"the_secret_is_wiped", the_secret_is_wiped},
                            {0}});
    unlink(path);
    return rc;
}
