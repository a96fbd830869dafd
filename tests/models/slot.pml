/* SPDX-License-Identifier: Apache-2.0 */
/*
 * May a slot be used again?  Ranks 0 and 1 are a group; when rank 0 is done with it, or has given it up, ranks 0 and 2 make another group
 * in the same slot.  Rank 1 may be late, or call an operation that rank 0 never will, at any time: it reads the mails that rank 0 writes.
 * Stores of ranks 0 and 1 go through store buffers (TSO).  Their waits may end at any time (deadline).
 *
 *   store(INSIDE), then call, data, stamp; store(INSIDE, 0)     comm_begin, post_address, request_release (collectives/request.c, post.h)
 *   stamp >= phase, look for ABORT, call, then data             request_check; all_agree of quick.c: call, look, then data
 *   store(ABORT), fence_heavy                                   announce_break (collectives/comm.c)
 *   inside == OLD: not free                                     slot_is_free_locked (collectives/create.c)
 *   OFFER, start above all clocks, ids and stamps               slots_offer, take_slot, comm_fill
 *   which group's mail it is                                    stale_mail
 *
 * Asserted: a mail whose call is as expected is read whole; in the new group every mail whose stamp has come is of the operation; what rank
 * 1 takes for its own group's is; a mail that is not says so by its group.
 * MUTANT 1: the slot is used again while rank 1 is inside.  2: start is not above rank 0's clock.  3: who gives up drains its own
 * stores only.  4: nobody looks for a break before it reads.  5: the calls are not compared.  6: a group begins with the old one's id in
 * the mails.
 */
#ifndef MUTANT
#define MUTANT 0
#endif
#define OPERATIONS 3 /* of the old group; two of the new one */
#define OLD 1
#define NEW 2
#define CALL(group, s) ((group) * 16 + (s))

mtype = { STAMP, CALLS, GROUP, DATA, INSIDE, ABORT, OFFER };
typedef letter {
    byte stamp;
    byte call;
    byte group;
    byte data
}
letter mail[6];     /* of rank m: m * 2 + (s & 1) */
byte inside1;
bool aborted0;
bool offered[3];
byte clock[3];
chan buffer0 = [6] of { mtype, byte, byte };
chan buffer1 = [6] of { mtype, byte, byte };

proctype memory(byte me; chan b) {
    mtype what;
    byte at, v;
end:
    do
    :: atomic { b?what,at,v;
                if
                :: what == STAMP -> mail[me * 2 + at].stamp = v
                :: what == CALLS -> mail[me * 2 + at].call = v
                :: what == GROUP -> mail[me * 2 + at].group = v
                :: what == DATA -> mail[me * 2 + at].data = v
                :: what == INSIDE -> inside1 = v
                :: what == ABORT -> aborted0 = true
                :: what == OFFER -> clock[me] = v; offered[me] = true
                fi; what = 0; at = 0; v = 0 }
    od
}

#define HIS(m) mail[(m) * 2 + (s & 1)]

inline post(b, group_id) {
    phase++;
    b!CALLS,(s & 1),CALL(group_id, s);
    b!GROUP,(s & 1),group_id;
    b!DATA,(s & 1),CALL(group_id, s);
    b!STAMP,(s & 1),phase
}

inline start_group(me, other) {
    start = (clock[me] > clock[other] -> clock[me] : clock[other]) + 1;
    if
    :: MUTANT == 2 -> start = clock[2] + 1
    :: else
    fi;
    phase = start;
    s = 1
}

inline read_new(other) {
    HIS(other).stamp >= phase;
    assert(HIS(other).call == CALL(NEW, s));
    assert(HIS(other).data == CALL(NEW, s));
    s++
}

proctype rank0() {
    byte s = 1, phase, start;
    do
    :: s <= OPERATIONS ->
        post(buffer0, OLD);
        if
        :: HIS(1).stamp >= phase ->
            assert(HIS(1).call == CALL(OLD, s));
            assert(HIS(1).data == CALL(OLD, s))
        :: HIS(1).stamp < phase ->
            buffer0!ABORT,0,0;
            empty(buffer0);
            if
            :: MUTANT != 3 -> empty(buffer1)
            :: else
            fi;
            break
        fi;
        s++
    :: break /* destroys the group */
    od;
    inside1 != OLD || MUTANT == 1;
    buffer0!OFFER,0,phase;
    offered[0] && offered[2];
    start_group(0, 2);
    if
    :: MUTANT != 6 -> buffer0!GROUP,0,NEW; buffer0!GROUP,1,NEW
    :: else
    fi;
    buffer0!STAMP,0,start;
    buffer0!STAMP,1,start;
    do
    :: s <= 2 -> post(buffer0, NEW); read_new(2)
    :: else -> break
    od
}

proctype rank1() {
    byte s = 1, phase;
    bool quick;
    if
    :: quick = true
    :: quick = false
    fi;
    do
    :: s <= OPERATIONS ->
        buffer1!INSIDE,0,OLD;
        post(buffer1, OLD);
        if
        :: HIS(0).stamp >= phase
        :: HIS(0).stamp < phase -> break
        fi;
        if
        :: quick && HIS(0).call != CALL(OLD, s) && MUTANT != 5 -> goto stale
        :: else
        fi;
        if
        :: aborted0 && MUTANT != 4 -> break
        :: else
        fi;
        if
        :: !quick && HIS(0).call != CALL(OLD, s) && MUTANT != 5 -> goto stale
        :: else
        fi;
        assert(HIS(0).data == CALL(OLD, s));
        buffer1!INSIDE,0,0;
        s++
    :: else -> break
    od;
    goto left;
stale:
    assert(aborted0 || HIS(0).group == NEW); /* stale_mail */
left:
    buffer1!INSIDE,0,0
}

proctype rank2() {
    byte s = 1, phase, start;
    atomic { clock[2] = phase; offered[2] = true }
    offered[0];
    start_group(2, 0);
    mail[4].stamp = start;
    mail[5].stamp = start;
    do
    :: s <= 2 ->
        phase++;
        HIS(2).call = CALL(NEW, s);
        HIS(2).data = CALL(NEW, s);
        HIS(2).stamp = phase;
        read_new(0)
    :: else -> break
    od
}

init {
    atomic {
        run memory(0, buffer0); run memory(1, buffer1);
        run rank0(); run rank1(); run rank2()
    }
}
