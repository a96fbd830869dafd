/* SPDX-License-Identifier: Apache-2.0 */
/* The join with real processes: every order of arrival, every kind of address, every way to disagree. */
#include "tests/ranks/scene.h"

/* ---------------------------------------------------------------------------------------------- joining */

static void joins_in_any_order(void) {
    struct ranks r;
    uint64_t rounds = check_count(4, 40);
    for (int n = 1; n <= 8; n++)
        for (uint64_t k = 0; k < rounds; k++) {
            struct scene sc = scene_at_port(n);
            sc.skew_us = k == 0 ? 0 : 5000;
            sc.after = k < 2 ? speak : NULL;
            run_scene(&r, &sc, n, -1);
            all_joined(&r, n);
            ranks_free(&r);
        }
}

static void joins_on_an_inherited_socket(void) {
    struct ranks r;
    for (int k = 0; k < 5; k++) {
        struct scene sc = scene_at_port(4);
        struct url u;
        struct url_addr a;
        int one = 1;
        CHECK(url_parse(sc.addr, &u) == 0 && url_resolve(&u, &a, 1) == 1);
        sc.listen_fd = socket(AF_INET, SOCK_STREAM, 0);
        setsockopt(sc.listen_fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
        CHECK(bind(sc.listen_fd, (struct sockaddr *)&a.addr, a.len) == 0 && listen(sc.listen_fd, 16) == 0);
        sc.skew_us = 3000;
        run_scene(&r, &sc, 4, -1);
        all_joined(&r, 4);
        ranks_free(&r);
        close(sc.listen_fd);
    }
}

static void refuses_a_socket_that_does_not_listen(void) {
    struct ranks r;
    int fds[2] = {socket(AF_INET, SOCK_STREAM, 0), open("/dev/null", O_RDONLY)};
    for (int k = 0; k < 2; k++) {
        struct scene sc = scene_at_port(2);
        sc.listen_fd = fds[k];
        sc.odd = 1;
        sc.odd_absent = 1;
        run_scene(&r, &sc, 2, -1);
        all_got(&r, 1, -1, SYP_EINVAL, "SYMPOOL_LISTEN_FD");
        ranks_free(&r);
        close(fds[k]);
    }
}

static void joins_without_an_address(void) {
    struct ranks r;
    for (int k = 0; k < 5; k++) {
        struct scene sc = scene_of(4);
        snprintf(sc.job, sizeof sc.job, "test-%d-%d", (int)getpid(), k);
        sc.restart = k;
        sc.skew_us = k ? 5000 : 0;
        sc.after = k == 0 ? speak : NULL;
        run_scene(&r, &sc, 4, -1);
        all_joined(&r, 4);
        ranks_free(&r);
    }
    struct scene sc = scene_of(2);
    run_scene(&r, &sc, 2, -1);
    all_got(&r, 2, -1, SYP_EINVAL, "SYMPOOL_ADDR");
    all_got(&r, 2, -1, SYP_EINVAL, "SYMPOOL_JOB");
    ranks_free(&r);
}

static void two_jobs_at_once_do_not_mix(void) {
    struct ranks r[2];
    for (int by_name = 0; by_name < 2; by_name++) {
        struct scene sc[2];
        for (int k = 0; k < 2; k++) {
            sc[k] = by_name ? scene_of(4) : scene_at_port(4);
            snprintf(sc[k].job, sizeof sc[k].job, "%c-%d", 'a' + k, (int)getpid());
            sc[k].skew_us = 5000;
            sc[k].seed = (uint64_t)k + 50;
            CHECK_EQ(ranks_start(&r[k], 4, MOST * sizeof(struct result), play, &sc[k]), 0);
        }
        for (int k = 0; k < 2; k++) {
            CHECK_EQ(ranks_wait(&r[k], 60, -1), 0);
            all_joined(&r[k], 4);
        }
        CHECK(result(&r[0], 0)->nonce != result(&r[1], 0)->nonce);
        ranks_free(&r[0]);
        ranks_free(&r[1]);
    }
}

static void many_ranks(void) {
    struct ranks r;
    struct scene sc = scene_at_port(64);
    run_scene(&r, &sc, 64, -1);
    all_joined(&r, 64);
    uint64_t most = 0;
    for (int i = 0; i < 64; i++)
        if (result(&r, i)->took > most) most = result(&r, i)->took;
    printf("64 ranks, longest join %.1f ms\n", (double)most / 1e6);
    ranks_free(&r);
}

static void ipv6_and_names(void) {
    struct ranks r;
    struct scene sc = scene_at_port(3);
    char port[8];
    snprintf(port, sizeof port, "%s", strrchr(sc.addr, ':') + 1);
    snprintf(sc.addr, sizeof sc.addr, "localhost:%s", port);
    run_scene(&r, &sc, 3, -1);
    all_joined(&r, 3);
    ranks_free(&r);
    int fd = socket(AF_INET6, SOCK_STREAM, 0);
    struct sockaddr_in6 a = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    int have6 = fd >= 0 && bind(fd, (struct sockaddr *)&a, sizeof a) == 0;
    close(fd);
    if (!have6) {
        check_skip("no IPv6 loopback here");
        return;
    }
    static const char *const forms[] = {"tcp://[::1]:%s", "[::1%%lo]:%s", "tcp6://[::1%%1]:%s", "[0:0::1]:%s"};
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        snprintf(sc.addr, sizeof sc.addr, forms[i], port);
        run_scene(&r, &sc, 3, -1);
        all_joined(&r, 3);
        ranks_free(&r);
    }
}

static void port_zero_is_published(void) {
    struct ranks r;
    char path[128];
    snprintf(path, sizeof path, "/tmp/sympool-test-%d.addr", (int)getpid());
    for (int stale = 0; stale < 2; stale++) {
        struct scene sc = scene_of(4);
        snprintf(sc.addr, sizeof sc.addr, "tcp://127.0.0.1:0");
        sc.skew_us = 5000;
        if (stale) { /* of an earlier job: nobody listens there */
            char old[64];
            free_port(old);
            FILE *f = fopen(path, "w");
            fprintf(f, "%s\n", old);
            fclose(f);
        }
        setenv("SYMPOOL_ADDR_FILE", path, 1);
        conf_reset();
        run_scene(&r, &sc, 4, -1);
        all_joined(&r, 4);
        ranks_free(&r);
        unlink(path);
    }
    unsetenv("SYMPOOL_ADDR_FILE");
    conf_reset();
    struct scene sc = scene_of(2);
    snprintf(sc.addr, sizeof sc.addr, "tcp://127.0.0.1:0");
    sc.timeout_ns = 200 * NS_PER_MS;
    run_scene(&r, &sc, 2, -1);
    CHECK_HAS(result(&r, 1)->text, "SYMPOOL_ADDR_FILE");
    CHECK_EQ(result(&r, 1)->rc, SYP_EINVAL);
    ranks_free(&r);
}

static void restarts_at_once(void) {
    struct ranks r;
    struct scene sc = scene_at_port(2);
    for (int k = 0; k < 50; k++) {
        run_scene(&r, &sc, 2, -1);
        all_joined(&r, 2);
        ranks_free(&r);
    }
}

static void knows_hosts(void) {
    struct ranks r;
    struct scene sc = scene_at_port(6);
    sc.hosts = 3;
    run_scene(&r, &sc, 6, -1);
    all_joined(&r, 6);
    ranks_free(&r);
}

/* ---------------------------------------------------------------------------------------- disagreements */

static void odd_scene(const struct scene *sc, int processes, const char *part) {
    struct ranks r;
    for (int k = 0; k < 3; k++) {
        struct scene one = *sc;
        free_port(one.addr);
        one.skew_us = k ? 4000 : 0;
        run_scene(&r, &one, processes, -1);
        all_got(&r, processes, -1, SYP_EJOIN, part);
        for (int i = 0; i < processes; i++) {
            CHECK_STR(result(&r, i)->text, result(&r, 0)->text);
            CHECK(result(&r, i)->took < 5 * NS_PER_S);
        }
        ranks_free(&r);
    }
}

static void names_what_differs(void) {
    struct scene sc = scene_of(4);
    sc.odd = 2;
    struct scene meta = sc, staging = sc, settings = sc, layout = sc, library = sc, world = sc, larger = sc;
    meta.odd_meta = 0;
    odd_scene(&meta, 4, "rank 2 has meta_size 0, ranks 0, 1, 3 have 1048576");
    staging.odd_staging = 4096;
    staging.odd_settings = 6; /* the digest differs, too: the reason is enough */
    odd_scene(&staging, 4,
              "rank 2 has staging_size 4096, ranks 0, 1, 3 have 1048576; give all ranks the same SYMPOOL_STAGING_SIZE");
    settings.odd_settings = 6;
    odd_scene(&settings, 4, "rank 2 has settings digest 0000000000000006, ranks 0, 1, 3 have 0000000000000005");
    layout.odd_layout = 0xdef;
    odd_scene(&layout, 4, "rank 2 has memory layout 0000000000000def");
    library.odd_library = 77;
    odd_scene(&library, 4, "rank 2 runs sympool version 77");
    world.odd_world = 3;
    odd_scene(&world, 4, "rank 2 says world size 3, ranks 0, 1, 3 say 4");
    larger.odd_world = 9;
    larger.odd_rank = 8;
    odd_scene(&larger, 4, "rank 8 says world size 9, ranks 0, 1, 3 say 4");
}

static void lists_all_at_once(void) {
    struct scene sc = scene_of(4);
    sc.odd = 3;
    sc.odd_meta = 4096;
    sc.odd_staging = 8192;
    odd_scene(&sc, 4,
              "rank 3 has meta_size 4096, ranks 0-2 have 1048576; give all ranks the same SYMPOOL_META_SIZE; rank 3 "
              "has staging_size 8192, "
              "ranks 0-2 have 1048576");
}

static void names_both_doubles(void) {
    struct ranks r;
    struct scene sc = scene_of(4);
    sc.odd = 2;
    sc.odd_rank = 1;
    odd_scene(&sc, 4, "rank 1 joined twice, from 127.0.0.1:");
    /* a fifth process beside a complete job */
    struct scene five = scene_at_port(4);
    five.odd = 4;
    five.odd_rank = 1;
    run_scene(&r, &five, 5, -1);
    int joined = result(&r, 0)->rc == SYP_OK; /* when the fifth came after the verdict */
    for (int i = 0; i < 5 && !joined; i++) {
        CHECK_HAS(result(&r, i)->text, "rank 1 joined twice");
        char pid[32];
        snprintf(pid, sizeof pid, "(pid %d)", (int)result(&r, 1)->self);
        CHECK_HAS(result(&r, i)->text, pid);
        snprintf(pid, sizeof pid, "(pid %d)", (int)result(&r, 4)->self);
        CHECK_HAS(result(&r, i)->text, pid);
    }
    ranks_free(&r);
}

static void lists_missing_ranks_at_the_deadline(void) {
    struct ranks r;
    struct scene sc = scene_at_port(4);
    sc.odd = 2;
    sc.odd_absent = 1;
    sc.timeout_ns = 300 * NS_PER_MS;
    run_scene(&r, &sc, 4, -1);
    all_got(&r, 4, 2, SYP_EJOIN, "3 of 4 ranks joined in 0.");
    all_got(&r, 4, 2, SYP_EJOIN, "missing: 2");
    for (int i = 0; i < 4; i++) {
        if (i == 2) continue;
        CHECK_EQ(result(&r, i)->peer, 2);
        CHECK(result(&r, i)->took >= 150 * NS_PER_MS && result(&r, i)->took < 5 * NS_PER_S);
    }
    ranks_free(&r);
}

static void names_an_absent_root(void) {
    struct ranks r;
    for (int by_name = 0; by_name < 2; by_name++) {
        struct scene sc = by_name ? scene_of(3) : scene_at_port(3);
        snprintf(sc.job, sizeof sc.job, "absent-%d", (int)getpid());
        sc.odd = 0;
        sc.odd_absent = 1;
        sc.timeout_ns = 300 * NS_PER_MS;
        run_scene(&r, &sc, 3, -1);
        all_got(&r, 3, 0, SYP_EJOIN, by_name ? "@sympool-" : sc.addr + 6);
        all_got(&r, 3, 0, SYP_EJOIN, "ECONNREFUSED");
        all_got(&r, 3, 0, SYP_EJOIN, "tries");
        ranks_free(&r);
    }
}

static void turns_away_another_job(void) {
    struct ranks r;
    struct scene sc = scene_at_port(3);
    snprintf(sc.job, sizeof sc.job, "a-job");
    sc.odd = 2;
    sc.other_job = 'b';
    sc.timeout_ns = 400 * NS_PER_MS;
    run_scene(&r, &sc, 3, -1);
    CHECK_EQ(result(&r, 2)->rc, SYP_EJOIN);
    CHECK_HAS(result(&r, 2)->text, "belongs to job \"a-job\"");
    CHECK_HAS(result(&r, 0)->text, "of job \"b-job\" was turned away");
    CHECK_STR(result(&r, 1)->text, result(&r, 0)->text);
    ranks_free(&r);
}

int main(void) {
    return check_main("rendezvous",
                      (struct check_test[]){
                          {"joins_in_any_order", joins_in_any_order},
                          {"joins_on_an_inherited_socket", joins_on_an_inherited_socket},
                          {"refuses_a_socket_that_does_not_listen", refuses_a_socket_that_does_not_listen},
                          {"joins_without_an_address", joins_without_an_address},
                          {"two_jobs_at_once_do_not_mix", two_jobs_at_once_do_not_mix},
                          {"many_ranks", many_ranks},
                          {"ipv6_and_names", ipv6_and_names},
                          {"port_zero_is_published", port_zero_is_published},
                          {"restarts_at_once", restarts_at_once},
                          {"knows_hosts", knows_hosts},
                          {"names_what_differs", names_what_differs},
                          {"lists_all_at_once", lists_all_at_once},
                          {"names_both_doubles", names_both_doubles},
                          {"lists_missing_ranks_at_the_deadline", lists_missing_ranks_at_the_deadline},
                          {"names_an_absent_root", names_an_absent_root},
                          {"turns_away_another_job", turns_away_another_job},
                          {0},
                      });
}
