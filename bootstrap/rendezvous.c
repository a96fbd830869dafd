/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Entry of the join: which side this rank plays, and where ranks without an address meet.  Must not know: frames.
 */
#include "bootstrap/rendezvous.h"

#include "bootstrap/star.h"
#include "pool/base/arena.h"
#include "pool/base/conf.h"
#include "pool/base/status.h"

#include <stddef.h>
#include <string.h>
#include <sys/un.h>

int meeting_place(const struct launch *who, struct url_addr *out) {
    if (who->local_size >= 0 && who->local_size != who->n_ranks)
        return err_set(SYP_EINVAL,
                       "join: no address is known, and %s says that %d of %d ranks are on this host; set SYMPOOL_ADDR "
                       "to tcp://IP:PORT of rank 0's "
                       "host on all ranks",
                       who->source, who->local_size, who->n_ranks);
    if (!who->job[0])
        return err_set(SYP_EINVAL,
                       "join: rank %d of %d (from %s) knows neither an address nor a job; set SYMPOOL_ADDR to "
                       "tcp://IP:PORT of rank 0's host, or, with "
                       "all ranks on one host, SYMPOOL_JOB to a name of the job",
                       who->rank, who->n_ranks, who->source);
    memset(out, 0, sizeof *out);
    struct sockaddr_un *a = (struct sockaddr_un *)&out->addr;
    a->sun_family = AF_UNIX;
    size_t n =
        text_format(a->sun_path + 1, sizeof a->sun_path - 1, "sympool-%d-%s-%d", os->uid(), who->job, who->restart);
    out->len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + n);
    return SYP_OK;
}

/* A job of one rank meets nobody. */
static int join_alone(const struct hello *self, struct auth *auth, struct roster *roster, struct star **out) {
    auth_close(auth); /* it was only looked at */
    uint64_t nonce = self->member_of;
    int rc = 0;
    while (rc >= 0 && nonce == 0)
        rc = os->random(&nonce, sizeof nonce);
    if (rc < 0) return err_sys(SYP_ESYS, rc, "join: random number for the job");
    struct star *s = star_new(1, 0, 0, NULL);
    struct roster_entry *e = map_alloc(sizeof *e);
    if (!s || !e) {
        star_close(s);
        if (e) map_free(e, sizeof *e);
        return err_set(SYP_ENOMEM, "join: no memory for a roster of one rank");
    }
    *e = self->self;
    e->generation = self->member_of ? self->self.generation : 1;
    e->host_index = 0;
    text_copy(e->addr, sizeof e->addr, "this process");
    *roster = (struct roster){.n = 1, .n_hosts = 1, .nonce = nonce, .epoch = self->epoch + 1, .rank = e};
    *out = s;
    return SYP_OK;
}

int rendezvous_join(const struct launch *who, const struct hello *self, uint64_t deadline, struct roster *roster,
                    struct star **out) {
    memset(roster, 0, sizeof *roster);
    *out = NULL;
    if (who->n_ranks < 1 || who->n_ranks > MAX_WORLD || who->rank < 0 || who->rank >= who->n_ranks)
        return err_set(SYP_EINVAL, "join: rank %d of %d", who->rank, who->n_ranks);
    struct hello h = *self;
    h.rank = h.self.rank = who->rank;
    h.n_ranks = who->n_ranks;
    text_copy(h.job, sizeof h.job, who->job);
    struct auth *auth;
    int rc = auth_open(conf_str(CONF_SECRET_FILE), who->rank == 0 ? JOIN_PLACES(who->n_ranks) : 1, &auth);
    if (rc) return rc;
    /* Strangers that were turned away leave their reasons in the error record; success must not show them. */
    struct syp_error before = *err_record();
    rc = who->n_ranks == 1 ? join_alone(&h, auth, roster, out)
         : who->rank == 0  ? root_join(who, &h, deadline, auth, roster, out)
                           : peer_join(who, &h, deadline, auth, roster, out);
    if (rc == SYP_OK) *err_record() = before;
    return rc;
}
