/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is typed at a terminal goes to rank 0 through a pipe.  Only while we are in the foreground: reading a terminal
 * from the background would stop us.
 */
#include "tools/run/run.h"

#include <errno.h>
#include <poll.h>
#include <unistd.h>

static void stop(struct input *in) {
    close(in->to);
    in->to = -1;
}

int input_poll_set(const struct input *in, struct pollfd *fds) {
    if (in->to < 0) return 0;
    if (in->start < in->end) {
        fds[0] = (struct pollfd){.fd = in->to, .events = POLLOUT};
        return 1;
    }
    if (tcgetpgrp(0) != getpgrp()) return 0;
    fds[0] = (struct pollfd){.fd = 0, .events = POLLIN};
    return 1;
}

void input_service(struct input *in, const struct pollfd *fds, int n) {
    if (n == 0 || in->to < 0 || fds[0].revents == 0) return;
    if (in->start == in->end) {
        ssize_t got = read(0, in->buf, sizeof in->buf);
        if (got < 0 && (errno == EINTR || errno == EAGAIN)) return;
        in->start = 0;
        in->end = got > 0 ? (size_t)got : 0;
        if (got <= 0) { /* end of input */
            stop(in);
            return;
        }
    }
    ssize_t wrote = write(in->to, in->buf + in->start, in->end - in->start);
    if (wrote >= 0)
        in->start += (size_t)wrote;
    else if (errno != EINTR && errno != EAGAIN)
        stop(in); /* rank 0 has closed it, or has ended */
}
