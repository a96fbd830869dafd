/* SPDX-License-Identifier: Apache-2.0 */
/* tsan: yes */
/* Crowding from the masks that ranks have published: of a made-up world, with a faked affinity of this rank. */
#include "bootstrap/crowd.h"

#include "pool/base/os.h"
#include "pool/stats.h"
#include "tests/support/check.h"

#include <pthread.h>

#define RANKS 4

static struct control_head head[RANKS];
static struct peer peer[RANKS];
static struct peers p;

static uint64_t my_mask;
static atom32 asked;
static int fake_processors(uint64_t *mask, size_t words) {
    add_relaxed(&asked, 1);
    if (words) mask[0] = my_mask;
    return __builtin_popcountll(my_mask);
}

/* The last rank is on another host. */
static void make_world(const uint64_t *masks) {
    p = (struct peers){.n = RANKS, .me = 0, .n_local = RANKS - 1, .peer = peer, .self = &head[0]};
    for (int r = 0; r < RANKS; r++) {
        store_relaxed(&head[r].life, 0);
        store_relaxed(&head[r].processors[0], masks[r]);
        peer[r].control = r < RANKS - 1 ? &head[r] : NULL;
    }
    my_mask = masks[0];
    store_relaxed(&asked, 0);
    crowd_count(&p);
}

static int crowded_at(uint64_t now) {
    crowd_look(&p, now);
    CHECK_EQ(stats_read(STAT_CROWDED), load_relaxed(&p.crowded));
    return (int)load_relaxed(&p.crowded);
}

static void only_all_masks_together_tell(void) {
    make_world((uint64_t[]){1, 2, 4, 0});
    CHECK(p.n_processors == 3 && !p.crowded); /* bound to one each */
    make_world((uint64_t[]){3, 3, 3, 0xff});
    CHECK(p.n_processors == 2 && p.crowded); /* the one on another host has its own */
    make_world((uint64_t[]){1, 1, 1, 0});
    CHECK(p.n_processors == 1 && p.crowded);
    store_relaxed(&head[2].processors[CONTROL_PROCESSORS / 64 - 1], 3ull << 62);
    crowd_count(&p);
    CHECK(p.n_processors == 3 && !p.crowded);
    store_relaxed(&head[2].processors[CONTROL_PROCESSORS / 64 - 1], 0);
}

static void own_mask_is_published(void) {
    make_world((uint64_t[]){7, 7, 7, 0});
    CHECK(!crowded_at(1000) && load_relaxed(&head[0].processors[0]) == 7);
    my_mask = 1;
    CHECK(!crowded_at(1000 + CROWD_LOOK_EVERY) && load_relaxed(&head[0].processors[0]) == 1); /* the others still may run on all */
    store_relaxed(&head[1].processors[0], 1);
    store_relaxed(&head[2].processors[0], 1);
    CHECK(crowded_at(1000 + 2 * CROWD_LOOK_EVERY));
    my_mask = 7;
    CHECK(!crowded_at(1000 + 3 * CROWD_LOOK_EVERY) && load_relaxed(&head[0].processors[0]) == 7);
}

static void looks_are_rare(void) {
    make_world((uint64_t[]){7, 7, 7, 0});
    for (uint64_t now = 5 * NS_PER_S; now < 6 * NS_PER_S; now += NS_PER_MS)
        crowd_look(&p, now);
    CHECK_EQ(load_relaxed(&asked), 10);
}

static void the_dead_need_no_processor(void) {
    make_world((uint64_t[]){3, 3, 3, 0});
    CHECK(crowded_at(1000));
    store_relaxed(&head[2].life, LIFE_DIED);
    CHECK(!crowded_at(1000 + CROWD_LOOK_EVERY));
    store_relaxed(&head[2].life, LIFE_LEFT);
    store_relaxed(&head[1].processors[0], 1);
    my_mask = 1;
    CHECK(crowded_at(1000 + 2 * CROWD_LOOK_EVERY)); /* two on one; what the dead one had published is void */
    store_relaxed(&head[2].processors[0], 6);
    CHECK(crowded_at(1000 + 3 * CROWD_LOOK_EVERY));
    store_relaxed(&head[2].life, 4711); /* replaced: a rank that lives */
    CHECK(!crowded_at(1000 + 4 * CROWD_LOOK_EVERY));
}

static void *look_often(void *arg) {
    for (uint64_t now = 0; now < 20 * NS_PER_S; now += 10 * NS_PER_MS)
        crowd_look(&p, now);
    return arg;
}

static void threads_share_a_look(void) {
    pthread_t t[3];
    make_world((uint64_t[]){7, 7, 7, 0});
    for (int i = 0; i < 3; i++)
        CHECK_EQ(pthread_create(&t[i], NULL, look_often, NULL), 0);
    for (int i = 0; i < 3; i++)
        CHECK_EQ(pthread_join(t[i], NULL), 0);
    CHECK(load_relaxed(&asked) >= 1 && load_relaxed(&asked) <= 200);
}

int main(void) {
    struct os_ops table = os_linux;
    table.processors = fake_processors;
    os_swap(&table);
    return check_main("crowding", (struct check_test[]){{"only_all_masks_together_tell", only_all_masks_together_tell},
                                                        {"own_mask_is_published", own_mask_is_published},
                                                        {"looks_are_rare", looks_are_rare},
                                                        {"the_dead_need_no_processor", the_dead_need_no_processor},
                                                        {"threads_share_a_look", threads_share_a_look},
                                                        {0}});
}
