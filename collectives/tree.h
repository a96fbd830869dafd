/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Meeting in groups of more than TREE_ABOVE members, where everybody looking at everybody would cost as the square of their number.
 *
 * Consecutive members form parts, the first of each is its leader.  A leader looks at its part (stamps, calls), says so (tree_mark.up), looks at what the other
 * leaders say, and tells its part (tree_mark.all); a member looks at its leader alone.  When the members' data in the mails is to be combined, member 0 does
 * that for all, and tells all.
 *
 * The stamps and mails remain the truth; the words of the tree only repeat it.  So whoever has waited long looks at the stamps of all (tree_look), and a leader
 * that died, stopped or does something else holds nobody up for longer than that; whoever hears that calls may differ compares the mails of all.
 */
#ifndef SYP_COLLECTIVES_TREE_H
#define SYP_COLLECTIVES_TREE_H

#include "collectives/request.h"

#define TREE_ABOVE 16

/* Members of a part, 0 = no tree; as many parts at most. */
static inline int tree_part(int n) {
    return n <= TREE_ABOVE ? 0 : n <= 256 ? 16 : 32;
}
_Static_assert(32 * 32 >= MAX_WORLD, "see tree_part");

/* Memory for what member 0 combines. */
int tree_memory(struct coll *k, int slot);
/* Publish the next phase, which every member awaits through the tree: wakes the leader alone. */
void tree_publish(struct comm *c);
/* post_deliver for these groups. */
void tree_deliver(struct comm *c, int kind);
/* request_all_at by the tree, for a phase that all members await so; a leader tells the others. */
int tree_all_at(struct request *r, uint64_t target);
/* Behind it, of the operation's first phase: 1 = all members ask for the same as we, and neither whom we heard it from nor our root has given the group up. */
int tree_agrees(const struct request *r);
/* What member 0 has combined, into our buffer. */
void tree_take_result(struct request *r);
/* We wait since long: 1 = the stamps of all have come. */
int tree_look(struct request *r);
static inline int tree_reached(const struct request *r, enum awaited on, int member, uint64_t target) {
    const struct comm *c = r->c; /* pairs with tree_store */
    return load_acquire((atom64 *)slot_word(c->member[member].slot, on, (int)(c->sequence & 1))) >= target || r->all_seen >= target;
}

#endif
