/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The claim on a rank.
 *
 * A forked child may keep the socket of a holder that died: so the name alone proves nothing, SO_PEERCRED tells who
 * listens on it, and a replacement uses the next of a few names.  Must not know: the join.
 */
#include "bootstrap/claim.h"

#include "pool/base/conf.h"
#include "pool/base/log.h"
#include "pool/base/os.h"
#include "pool/base/status.h"
#include "pool/base/text.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <sys/un.h>

#define NAMES 4      /* for one rank: so many holders may have died and left children with their socket */
#define BACKLOG 4096 /* nobody accepts: every later claimant's look stays in the queue */

static uint64_t absorb(uint64_t h, const char *text) {
    for (const char *p = text; *p; p++)
        h = (h ^ (uint8_t)*p) * 0x100000001b3ull;
    return (h ^ 0xff) * 0x100000001b3ull; /* the end counts, too */
}

static socklen_t name_of(const struct launch *who, int number, struct sockaddr_un *a) {
    char port[16];
    const char *file = conf_str(CONF_ADDR_FILE);
    uint64_t h = absorb(0xcbf29ce484222325ull, who->job);
    if (who->has_addr) {
        text_format(port, sizeof port, "%u", (unsigned)who->addr.port);
        h = absorb(absorb(absorb(h, who->addr.host), who->addr.scope), port);
        if (who->addr.port == 0) h = absorb(h, file ? file : ""); /* what tells jobs apart whose rank 0 chooses */
    }
    *a = (struct sockaddr_un){.sun_family = AF_UNIX};
    size_t n = text_format(a->sun_path + 1, sizeof a->sun_path - 1, "sympool-claim-%d-%016llx-%d-%d-%d", os->uid(),
                           (unsigned long long)h, who->restart, who->rank, number);
    return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + n);
}

/* A job of one rank meets nobody, and without job and address nothing tells two jobs apart. */
static int claimable(const struct launch *who) {
    return who->n_ranks > 1 && (who->has_addr || who->job[0]);
}

/* The living holder of a name: 1 with its pid (0 = it cannot be told), or 0. */
static int holder(const struct sockaddr_un *a, socklen_t len, int *pid) {
    int uid = -1, fd = os->socket(AF_UNIX, SOCK_STREAM);
    *pid = 0;
    if (fd < 0) return 0;
    int rc = os->connect(fd, (const struct sockaddr *)a, len), held = rc == -EAGAIN; /* its queue is full */
    if (rc >= 0 && os->socket_cred(fd, pid, &uid) >= 0 && uid == os->uid())
        held = *pid <= 0 || os->process_alive(*pid) != 0;
    (void)os->close(fd);
    return held;
}

int claim_look(const struct launch *who) {
    if (!claimable(who)) return SYP_OK;
    for (int i = 0; i < NAMES; i++) {
        struct sockaddr_un a;
        socklen_t len = name_of(who, i, &a);
        int pid;
        if (!holder(&a, len, &pid) || pid == os->pid()) continue;
        err_set(
            SYP_ESTATE,
            "rank %d of job \"%s\" is held by process %d already: this one, which has inherited its environment, stays "
            "private; give it a rank of its own to let it join",
            who->rank, who->job, pid);
        return err_peer(who->rank, pid);
    }
    return SYP_OK;
}

int claim_hold(const struct launch *who) {
    if (!claimable(who)) return -1;
    int rc = -EADDRINUSE, fd = os->socket(AF_UNIX, SOCK_STREAM);
    for (int i = 0; i < NAMES && fd >= 0 && rc == -EADDRINUSE; i++) {
        struct sockaddr_un a;
        socklen_t len = name_of(who, i, &a);
        rc = os->bind(fd, (const struct sockaddr *)&a, len);
    }
    if (fd >= 0 && rc >= 0) rc = os->listen(fd, BACKLOG);
    if (fd >= 0 && rc >= 0) return fd;
    log_info("rank %d cannot be protected against programs that inherit its environment: errno %d", who->rank,
             fd < 0 ? -fd : -rc);
    if (fd >= 0) (void)os->close(fd);
    return -1;
}
