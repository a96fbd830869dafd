/* SPDX-License-Identifier: Apache-2.0 */
/* See the header.  The order is the attach's, each step undone by local_down whatever was reached. */
#include "tests/support/local_world.h"

#include "pool/base/arena.h"
#include "pool/base/status.h"
#include "tests/support/check.h"
#include "tests/support/fake_os.h"

struct peers_layout local_layout(void) {
    return (struct peers_layout){.control_body = LOCAL_BODY, .exchange_len = LOCAL_EXCHANGE};
}

static struct region_conf pool_conf(void) {
    return (struct region_conf){.backend = &backend_host,
                                .len = LOCAL_DATA,
                                .meta = 64u << 10,
                                .shared = 1,
                                .chunk = 64u << 10,
                                .name = "sympool pool"};
}

int local_roster(struct roster *r, int n, uint64_t nonce) {
    struct region_conf conf = pool_conf();
    struct peers_layout layout = local_layout();
    *r = (struct roster){.n = n, .n_hosts = 1, .nonce = nonce, .epoch = 1};
    r->rank = map_alloc(sizeof *r->rank * (size_t)n);
    if (!r->rank) return err_set(SYP_ENOMEM, "no memory for a roster");
    for (int i = 0; i < n; i++) {
        struct roster_entry *e = &r->rank[i];
        e->rank = i;
        e->pid = os->pid();
        e->uid = (uint32_t)os->uid();
        e->generation = 1;
        region_round(&conf, &e->data_len, &e->meta_size);
        e->local_mem_size = e->data_len;
        e->control_len = sizeof(struct control_head) + layout.control_body;
        e->exchange_len = layout.exchange_len;
    }
    return SYP_OK;
}

int local_open(struct local_rank *l, const struct roster *roster, int me) {
    struct region_conf conf = pool_conf();
    struct peers_layout layout = local_layout();
    l->roster = *roster;
    int rc = peers_reserve(&l->peers, &l->roster, me, &layout);
    if (rc == SYP_OK) {
        conf.at = peers_pool_place(&l->peers);
        rc = region_open(&l->region, &conf);
        l->opened = rc == SYP_OK;
    }
    if (rc == SYP_OK) rc = peers_open_segments(&l->peers, &l->region);
    if (rc != SYP_OK) local_down(l);
    return rc;
}

int local_join(struct local_rank *l, uint64_t deadline) {
    int rc = keeper_start(&l->keeper, l->peers.self);
    if (rc == SYP_OK) rc = peers_map(&l->peers, deadline);
    if (rc != SYP_OK) local_down(l);
    return rc;
}

int local_up(struct local_rank *l, const struct roster *roster, int me, uint64_t deadline) {
    int rc = local_open(l, roster, me);
    return rc == SYP_OK ? local_join(l, deadline) : rc;
}

void local_down(struct local_rank *l) {
    peers_unmap(&l->peers);
    keeper_stop(&l->keeper);
    peers_close_segments(&l->peers);
    if (l->opened) region_close(&l->region);
    l->opened = 0;
    peers_release(&l->peers);
    roster_free(&l->roster);
}

/* Under ThreadSanitizer records of ended threads are not used again: then the arena, which gives nothing back, grows by
 * a chunk. */
#if defined(__SANITIZE_THREAD__)
#define ARENA_GROWS 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define ARENA_GROWS 1
#endif
#endif
#ifndef ARENA_GROWS
#define ARENA_GROWS 0
#endif

void local_nothing_left(void) {
    CHECK_EQ(fake_os_open_fds(), 0);
    CHECK_EQ(fake_os_threads(), 0);
    if (!ARENA_GROWS) CHECK_EQ(fake_os_mapped_bytes(), 0);
}
