/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Collectives: the implementations that this program has itself.
 */
#ifndef BENCH_COLL_IMPLS_H
#define BENCH_COLL_IMPLS_H

#include "tools/bench/coll.h"

extern const struct coll_impl coll_impl_ours, coll_impl_vllm;

#endif
