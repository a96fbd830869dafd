/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pool/base/thread: one record per living thread, used again after its owner is gone.
 */
#include "pool/base/thread.h"
#include "pool/base/os.h"
#include "pool/base/status.h"
#include "tests/support/check.h"
#include "tests/support/fake_os.h"

#include <errno.h>
#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>

static void *new_thread(void *arg) {
    struct thread *t = thread_self();
    long bad = 0;
    (void)arg;
    if (!t) return (void *)1;
    bad += t != thread_self();
    for (int i = 0; i < THREAD_SLOTS; i++)
        bad += t->slot[i] != NULL;
    bad += t->error.code != SYP_OK || t->error.text[0] || t->error.peer != -1;
    /* what a successor must not see */
    for (int i = 0; i < THREAD_SLOTS; i++)
        t->slot[i] = t;
    err_set(SYP_EBUSY, "left over");
    return (void *)bad;
}

static void one_record_each(void) {
    struct thread *mine = thread_self();
    CHECK(mine != NULL && mine == thread_self());
    CHECK_EQ(sizeof(struct thread) < 4096, 1);
}

/* 2,000 short threads one after the other: the arena must not grow with their number. */
static void records_are_used_again(void) {
    uint64_t n = check_count(2000, 20000);
    long bad = 0;
    struct thread *mine = thread_self();
    fake_os_on();
    for (uint64_t i = 0; i < n; i++) {
        pthread_t id;
        void *result = NULL;
        int r = pthread_create(&id, NULL, new_thread, NULL);
        CHECK_EQ(r, 0);
        if (r) break;
        pthread_join(id, &result);
        bad += (long)result;
    }
    CHECK_EQ(bad, 0);
    /* 2,000 records would be 2.3 MB; the arena's first 64 KiB are enough */
    CHECK_EQ(fake_os_mapped_bytes(), 0);
    fake_os_off();
    CHECK(thread_self() == mine);
}

enum { CROWD = 24 };
static pthread_barrier_t all_here;
static struct thread *crowd[CROWD];

static void *member(void *arg) {
    crowd[(uintptr_t)arg] = thread_self();
    pthread_barrier_wait(&all_here);
    void *bad = NULL;
    if (thread_self() != crowd[(uintptr_t)arg]) bad = (void *)1;
    return bad;
}

/* Threads alive at the same time never share a record, also when they all start at once over records of the dead. */
static void living_threads_do_not_share(void) {
    fake_os_on();
    for (uint64_t round = check_count(50, 1000); round > 0; round--) {
        pthread_t id[CROWD];
        pthread_barrier_init(&all_here, NULL, CROWD);
        for (uintptr_t i = 0; i < CROWD; i++)
            CHECK_EQ(pthread_create(&id[i], NULL, member, (void *)i), 0);
        for (int i = 0; i < CROWD; i++) {
            void *bad;
            pthread_join(id[i], &bad);
            CHECK(bad == NULL);
        }
        pthread_barrier_destroy(&all_here);
        for (int i = 0; i < CROWD; i++) {
            CHECK(crowd[i] != NULL && crowd[i] != thread_self());
            for (int k = 0; k < i; k++)
                CHECK(crowd[i] != crowd[k]);
        }
    }
    /* one record for each thread that ever lived would take three chunks of the arena and more */
    CHECK(fake_os_mapped_bytes() <= 256 << 10);
    fake_os_off();
}

#if !defined(__SANITIZE_THREAD__)
static void *own_record(void *arg) {
    (void)arg;
    return thread_self();
}
#endif

static void *fork_here(void *arg) {
    struct thread *mine = thread_self();
    err_set(SYP_EBUSY, "of the parent");
    (void)arg;
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        int bad = 0;
        thread_after_fork();
        if (thread_self() != mine) bad |= 1;
        if ((load_relaxed(&mine->owner) & 0x3fffff) != (uint32_t)os->tid()) bad |= 2;
        if (strcmp(syp_error_text(), "of the parent") != 0) bad |= 4;
#if !defined(__SANITIZE_THREAD__) /* which refuses to start threads here */
        /* a thread of the child gets another one, and the record of the parent's other thread is free */
        pthread_t id;
        void *other = NULL;
        if (pthread_create(&id, NULL, own_record, NULL) != 0) bad |= 8;
        pthread_join(id, &other);
        if (!other || other == (void *)mine) bad |= 16;
#endif
        _exit(bad);
    }
    int status = -1;
    if (child < 0 || waitpid(child, &status, 0) != child) status = -1;
    return (void *)(long)status;
}

static void forked_child_keeps_its_record(void) {
    pthread_t id;
    void *status;
    CHECK_EQ((long)fork_here(NULL), 0);
    CHECK_EQ(pthread_create(&id, NULL, fork_here, NULL), 0);
    pthread_join(id, &status);
    CHECK_EQ((long)status, 0);
}

static void *no_memory(void *arg) {
    (void)arg;
    /* the common record serves */
    int code = err_set(SYP_ENOMEM, "nothing left");
    return (void *)(long)(thread_self() != NULL || code != SYP_ENOMEM || strcmp(syp_error_text(), "nothing left") != 0);
}

static int nobody_dies(int tid) {
    (void)tid;
    return 1;
}
static int no_map(void *addr, size_t len, int prot, int fd, uint64_t off, void **out) {
    (void)addr, (void)len, (void)prot, (void)fd, (void)off, (void)out;
    return -ENOMEM;
}

static void without_memory(void) {
    struct os_ops table = os_linux;
    table.thread_alive = nobody_dies;
    const struct os_ops *old = os_swap(&table);
    long bad = 0;
    table.map = no_map;
    for (int i = 0; i < 1000 && !bad; i++) {
        /* uses the arena up, then comes to the case */
        pthread_t id;
        void *result = NULL;
        CHECK_EQ(pthread_create(&id, NULL, no_memory, NULL), 0);
        pthread_join(id, &result);
        bad = result == NULL; /* found: no record, and an error text all the same */
    }
    CHECK_EQ(bad, 1);
    os_swap(old);
}

int main(void) {
    return check_main("thread", (struct check_test[]){{"one_record_each", one_record_each},
                                                      {"records_are_used_again", records_are_used_again},
                                                      {"living_threads_do_not_share", living_threads_do_not_share},
                                                      {"forked_child_keeps_its_record", forked_child_keeps_its_record},
                                                      {"without_memory", without_memory},
                                                      {0}});
}
