/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Meeting in groups of more than TREE_ABOVE members, where everybody looking at everybody would cost as the square of their number.
 *
 * Members that share a cache form parts, the first of each is its leader.  A leader looks at its part (stamps, calls) and says so (tree_mark.up); all look at the
 * leaders.  When the members' data in the mails is to be combined, member 0 does that for all, and tells all (tree_mark.all): elements are combined in member
 * order, so partial sums are of no use.
 *
 * The stamps and mails remain the truth; the words of the tree only repeat it.  So where ranks share processors, and a turn of the leader costs more than a look
 * at its part, members look at the part themselves; whoever has waited long looks at the stamps of all (tree_look), and a leader that died, stopped or does
 * something else holds nobody up for longer than that; whoever hears that calls may differ compares the mails of all.
 */
#ifndef SYP_COLLECTIVES_TREE_H
#define SYP_COLLECTIVES_TREE_H

#include "collectives/request.h"

#define TREE_ABOVE 16

/* Memory for what member 0 combines. */
int tree_memory(struct coll *k, int slot);
/* Bytes of c->seat and c->part for n members.  And fill them in, from the members' ranks; c->parts and c->own_part, too. */
size_t tree_table_bytes(int n);
void tree_arrange(struct comm *c, void *table);
/* Publish the next phase, which every member awaits: through the tree, where there is one, so that it wakes the leader alone. */
void tree_publish(struct comm *c);
/* request_all_at by the tree, for a phase that all members await so; a leader tells the others. */
int tree_all_at(struct request *r, uint64_t target);
/* Behind it, of the operation's first phase: 1 = all members ask for the same as we, and neither whom we heard it from nor our root has given the group up. */
int tree_agrees(const struct request *r);
/* What member 0 has combined, into our buffer. */
void tree_take_result(struct request *r);
/* We wait since long: 1 = the stamps of all have come. */
int tree_look(struct request *r);
/* wait_over for a word of the tree. */
int tree_over(struct request *r);

#endif
