/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/strike.h"
#include "pool/base/os.h"
#include "pool/base/point.h"

#include <signal.h>
#include <string.h>
#include <unistd.h>

static const char *armed;
static atom32 passages; /* several threads may pass */
static int armed_signal;
static atom64 *armed_when;

static void strike(const char *point) {
    if (strcmp(point, armed) != 0 || add_relaxed(&passages, 1) + 1 != 0) return;
    store_release(armed_when, os->now());
    kill(getpid(), armed_signal);
}

void strike_at(const char *point, int after, int signal, atom64 *when) {
    armed = point;
    store_relaxed(&passages, (uint32_t)-after);
    armed_signal = signal;
    armed_when = when;
    test_point_hook = strike;
}
