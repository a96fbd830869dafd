/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Frames between ranks during the join.  Little-endian, length-checked, parsed from a bounded cursor only; no pointer,
 * no struct image and no serialised object of any language crosses the wire.
 *
 *   magic u64 | version u16 | type u16 | flags u32 | length u32 (payload bytes, <= WIRE_MAX) | sequence u64 | payload
 *
 * With a secret (see auth.h) the ends first exchange WIRE_GREETs; every other frame then has the flag WIRE_SEALED and a
 * MAC of WIRE_MAC bytes behind its payload.
 *
 * Unknown type or flag, wrong magic or version, or a length above the bound: the connection is refused (SYP_EJOIN in
 * the record) before anything is allocated.
 */
#ifndef SYP_BOOTSTRAP_WIRE_H
#define SYP_BOOTSTRAP_WIRE_H

#include "bootstrap/roster.h"

#include <stddef.h>
#include <stdint.h>

#define WIRE_MAGIC 0x31304c4f4f504d53ull
#define WIRE_VERSION 1u
#define WIRE_HEAD 28u
#define WIRE_MAX (256u << 10) /* a roster of 1,024 ranks fits */
#define WIRE_HELLO_MAX 512u   /* all an unauthenticated peer may send */
#define WIRE_NONCE 32u
#define WIRE_MAC 32u
#define WIRE_SEALED 1u /* flag: a MAC follows the payload */

enum wire_type {
    WIRE_HELLO = 1,  /* rank -> rank 0: struct hello */
    WIRE_ROSTER = 2, /* rank 0 -> all: verdict "joined" */
    WIRE_REJECT = 3, /* rank 0 -> all: verdict "not joined": struct notice */
    WIRE_DATA = 4,   /* oob collectives: opaque bytes */
    WIRE_LOST = 5,   /* either way: the attach is given up: struct notice */
    WIRE_GREET = 6   /* either way, before the hello, where there is a secret: a nonce */
};

struct wire_head {
    uint16_t type;
    uint32_t flags, length;
    uint64_t sequence;
};

struct hello {
    uint32_t library; /* SYP_VERSION */
    uint64_t layout;  /* digest of sizes and offsets of all shared structs */
    int32_t rank, n_ranks;
    char job[64];
    struct roster_entry self; /* addr, host_index not sent; generation 0 = new */
    uint32_t page_size;
    uint64_t settings;     /* digest of the other settings that must agree */
    uint64_t staging_size; /* so that a difference can be named */
    uint64_t member_of;    /* nonce of the job this rank is already part of and comes back to; 0 = it is new */
    uint32_t epoch;        /* of that job, see struct roster; 0 = it is new */
    uint64_t patience_ns;  /* how long the sender will still wait; filled by the rendezvous, which decides before the
                              least patient leaves */
};

/* Bad news: payload of WIRE_REJECT and WIRE_LOST. */
#define WIRE_NOTICE_TEXT 900
struct notice {
    int32_t code; /* SYP_EJOIN, SYP_EPEER or SYP_ETIMEOUT; 0 = none */
    int32_t peer; /* rank to blame, -1 = none */
    int64_t pid;  /* of that rank, 0 = unknown */
    char text[WIRE_NOTICE_TEXT + 1];
};

/* Bounded cursor: a read or write past the end sets bad and does nothing; callers check once. */
struct wire {
    uint8_t *buf;
    size_t cap, pos;
    int bad;
};
void wire_put_u16(struct wire *w, uint16_t v);
void wire_put_u32(struct wire *w, uint32_t v);
void wire_put_u64(struct wire *w, uint64_t v);
void wire_put_text(struct wire *w, const char *s); /* u16 length + bytes */
uint16_t wire_get_u16(struct wire *w);
uint32_t wire_get_u32(struct wire *w);
uint64_t wire_get_u64(struct wire *w);
void wire_get_text(struct wire *w, char *out, size_t cap); /* bad when longer than cap - 1 or with a NUL inside */

void wire_put_head(struct wire *w, const struct wire_head *h);
/* 0, or SYP_EJOIN with the record set.  most: largest payload acceptable in this state. */
int wire_get_head(struct wire *w, struct wire_head *h, uint32_t most);
/* Payloads.  The getters want the cursor to end where the payload ends: trailing bytes are refused.  0, or SYP_EJOIN
 * with the record set. */
void wire_put_greet(struct wire *w, const uint8_t nonce[WIRE_NONCE]);
int wire_get_greet(struct wire *w, uint8_t nonce[WIRE_NONCE]);
void wire_put_hello(struct wire *w, const struct hello *h);
int wire_get_hello(struct wire *w, struct hello *h);
void wire_put_notice(struct wire *w, const struct notice *n);
int wire_get_notice(struct wire *w, struct notice *n);
void wire_put_roster(struct wire *w, const struct roster *r);
/* out->rank is map_alloc'ed.  Also SYP_ENOMEM. */
int wire_get_roster(struct wire *w, struct roster *out);

/* 1 if every character may stand in the name of a job: [A-Za-z0-9._:-]. */
int wire_job_ok(const char *job);

#endif
