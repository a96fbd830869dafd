/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Best fit over a range of offsets.  Three structures over one set of records: the list in address order (coalescing),
 * a red-black tree of the free blocks keyed (length, offset) (choice), and a hash from offset to block (free and
 * look-up by pointer).
 *
 * Invariants: see space.h.  The choice depends on lengths and offsets only, never on record numbers or the order of the
 * hash. A call takes every record and index place it needs before it changes anything, so that a refusal changes
 * nothing.
 *
 * Must not know: what the range is made of, addresses, locks, peers.
 */
#include "pool/space.h"

#include "pool/base/os.h"
#include "pool/base/status.h"

#include <string.h>

#define INDEX_FIRST 1024u /* places of a new index: one page */
/* Free blocks looked at for an aligned part before a block that holds it anywhere is taken: keeps an allocation O(log
 * n). */
#define ALIGN_STEPS 128u

enum { BLACK, RED };

/* ------------------------------------------------------------------------------------- tree of free blocks */

static uint32_t *child(const struct space *s, uint32_t n, int side) {
    struct space_block *b = space_at(s, n);
    return side ? &b->right : &b->left;
}

static int is_red(const struct space *s, uint32_t n) {
    return n && space_at(s, n)->color == RED;
}

/* Put n (may be 0) where `old` hangs under its parent. */
static void replace(struct space *s, uint32_t old, uint32_t n) {
    uint32_t up = space_at(s, old)->up;
    if (!up)
        s->root = n;
    else
        *child(s, up, space_at(s, up)->right == old) = n;
    if (n) space_at(s, n)->up = up;
}

/* n goes down to `side`, its child of the other side comes up. */
static void rotate(struct space *s, uint32_t n, int side) {
    uint32_t c = *child(s, n, !side), inner = *child(s, c, side);
    replace(s, n, c);
    *child(s, n, !side) = inner;
    if (inner) space_at(s, inner)->up = n;
    *child(s, c, side) = n;
    space_at(s, n)->up = c;
}

static int sorts_before(const struct space_block *a, const struct space_block *b) {
    return a->len != b->len ? a->len < b->len : a->off < b->off;
}

static void tree_add(struct space *s, uint32_t n) {
    struct space_block *b = space_at(s, n);
    uint32_t up = 0;
    uint32_t *place = &s->root;
    while (*place) {
        up = *place;
        place = child(s, up, sorts_before(space_at(s, up), b));
    }
    *place = n;
    b->up = up;
    b->left = b->right = 0;
    b->color = RED;
    while (is_red(s, up = space_at(s, n)->up)) {
        uint32_t above = space_at(s, up)->up;
        int side = space_at(s, above)->right == up;
        uint32_t uncle = *child(s, above, !side);
        if (is_red(s, uncle)) {
            space_at(s, up)->color = space_at(s, uncle)->color = BLACK;
            space_at(s, above)->color = RED;
            n = above;
            continue;
        }
        if (*child(s, up, !side) == n) {
            rotate(s, up, side);
            up = n;
        }
        space_at(s, up)->color = BLACK;
        space_at(s, above)->color = RED;
        rotate(s, above, !side);
        break;
    }
    space_at(s, s->root)->color = BLACK;
}

/* The paths through x (may be 0), child of up, are one black node short. */
static void tree_rebalance(struct space *s, uint32_t x, uint32_t up) {
    while (x != s->root && !is_red(s, x)) {
        int side = space_at(s, up)->left != x;
        uint32_t sibling = *child(s, up, !side);
        if (is_red(s, sibling)) {
            space_at(s, sibling)->color = BLACK;
            space_at(s, up)->color = RED;
            rotate(s, up, side);
            sibling = *child(s, up, !side);
        }
        uint32_t near = *child(s, sibling, side), far = *child(s, sibling, !side);
        if (!is_red(s, near) && !is_red(s, far)) {
            space_at(s, sibling)->color = RED;
            x = up;
            up = space_at(s, x)->up;
            continue;
        }
        if (!is_red(s, far)) {
            space_at(s, near)->color = BLACK;
            space_at(s, sibling)->color = RED;
            rotate(s, sibling, !side);
            far = sibling;
            sibling = near;
        }
        space_at(s, sibling)->color = space_at(s, up)->color;
        space_at(s, up)->color = space_at(s, far)->color = BLACK;
        rotate(s, up, side);
        return;
    }
    if (x) space_at(s, x)->color = BLACK;
}

static void tree_remove(struct space *s, uint32_t n) {
    struct space_block *b = space_at(s, n);
    uint32_t x, up = b->up;
    int color = b->color;
    if (!b->left || !b->right) {
        x = b->left ? b->left : b->right;
        replace(s, n, x);
    } else {
        uint32_t next = b->right; /* takes n's place and colour */
        while (space_at(s, next)->left)
            next = space_at(s, next)->left;
        struct space_block *m = space_at(s, next);
        color = m->color;
        x = m->right;
        up = m->up;
        if (up == n) {
            up = next;
        } else {
            replace(s, next, x);
            m->right = b->right;
            space_at(s, m->right)->up = next;
        }
        replace(s, n, next);
        m->left = b->left;
        space_at(s, m->left)->up = next;
        m->color = b->color;
    }
    b->left = b->right = b->up = 0;
    if (color == BLACK) tree_rebalance(s, x, up);
}

/* Smallest free block of at least len bytes, lowest offset on ties; 0 = none. */
static uint32_t tree_at_least(const struct space *s, uint64_t len) {
    uint32_t best = 0;
    for (uint32_t n = s->root; n;) {
        struct space_block *b = space_at(s, n);
        if (b->len >= len) {
            best = n;
            n = b->left;
        } else {
            n = b->right;
        }
    }
    return best;
}

static uint32_t tree_next(const struct space *s, uint32_t n) {
    uint32_t right = space_at(s, n)->right;
    if (right) {
        while (space_at(s, right)->left)
            right = space_at(s, right)->left;
        return right;
    }
    uint32_t up = space_at(s, n)->up;
    while (up && space_at(s, up)->right == n) {
        n = up;
        up = space_at(s, n)->up;
    }
    return up;
}

/* ------------------------------------------------------------------------------------- index of the offsets */

static void index_put(const struct space *s, uint32_t *table, uint32_t mask, uint32_t block) {
    uint32_t i = space_index_home(space_at(s, block)->off, mask);
    while (table[i])
        i = (i + 1) & mask;
    table[i] = block;
}

static void index_add(struct space *s, uint32_t block) {
    index_put(s, s->index, s->index_mask, block);
    s->index_used++;
}

/* Linear probing without tombstones: whoever was pushed past the hole moves into it. */
static void index_remove(struct space *s, uint32_t block) {
    uint32_t mask = s->index_mask, hole = space_index_home(space_at(s, block)->off, mask);
    while (s->index[hole] != block)
        hole = (hole + 1) & mask;
    for (uint32_t i = (hole + 1) & mask; s->index[i]; i = (i + 1) & mask) {
        uint32_t home = space_index_home(space_at(s, s->index[i])->off, mask);
        if (((i - home) & mask) >= ((i - hole) & mask)) {
            s->index[hole] = s->index[i];
            hole = i;
        }
    }
    s->index[hole] = 0;
    s->index_used--;
}

static size_t index_bytes(uint32_t mask) {
    return ((size_t)mask + 1) * sizeof(uint32_t);
}

/* Places for n more blocks, at most three in four taken: 0, or -1 when the index has to grow and there is no memory. */
static int index_reserve(struct space *s, uint32_t n) {
    uint32_t mask = s->index_mask;
    if (s->index_used + n <= mask / 4 * 3) return 0;
    if (mask >= UINT32_MAX / 2) return -1;
    mask = mask * 2 + 1;
    uint32_t *table = map_alloc(index_bytes(mask));
    if (!table) return -1;
    for (uint32_t b = s->first; b; b = space_at(s, b)->next)
        index_put(s, table, mask, b);
    map_free(s->index, index_bytes(s->index_mask));
    s->index = table;
    s->index_mask = mask;
    return 0;
}

/* --------------------------------------------------------------------------------------------- the space */

int space_init(struct space *s, uint64_t begin, uint64_t end) {
    memset(s, 0, sizeof *s);
    s->begin = begin;
    s->end = end;
    slab_init(&s->blocks, sizeof(struct space_block));
    s->index_mask = INDEX_FIRST - 1;
    s->index = map_alloc(index_bytes(s->index_mask));
    if (!s->index) return err_set(SYP_ENOMEM, "create an allocator: no memory for its index of blocks");
    if (begin == end) return SYP_OK;
    uint32_t n = slab_new(&s->blocks);
    if (!n) {
        space_fini(s);
        return err_set(SYP_ENOMEM, "create an allocator: no memory for its records of blocks");
    }
    struct space_block *b = space_at(s, n);
    b->off = begin;
    b->len = end - begin;
    b->state = SPACE_FREE;
    s->first = n;
    index_add(s, n);
    tree_add(s, n);
    return SYP_OK;
}

void space_fini(struct space *s) {
    slab_fini(&s->blocks);
    if (s->index) map_free(s->index, index_bytes(s->index_mask));
    memset(s, 0, sizeof *s);
}

/* Where in free block n the part would start: the first aligned offset. */
static uint64_t aligned_start(const struct space *s, uint32_t n, uint64_t align) {
    return round_up(s->bias + space_at(s, n)->off, align) - s->bias;
}

static int holds_aligned(const struct space *s, uint32_t n, uint64_t len, uint64_t align) {
    uint64_t skip = aligned_start(s, n, align) - space_at(s, n)->off;
    return skip < space_at(s, n)->len && space_at(s, n)->len - skip >= len;
}

/*
 * The free block to take from: the smallest in which an aligned part fits.  Among the first ALIGN_STEPS that are long
 * enough it is searched exactly; then the smallest that holds it wherever it lies; and only when there is none, the
 * rest one by one.
 */
static uint32_t choose(const struct space *s, uint64_t len, uint64_t align) {
    uint32_t n = tree_at_least(s, len);
    if (align == SPACE_GRAIN) return n;
    uint32_t sure = tree_at_least(s, len + align - SPACE_GRAIN);
    for (unsigned steps = 0; n && n != sure; n = tree_next(s, n), steps++) {
        if (sure && steps == ALIGN_STEPS) return sure;
        if (holds_aligned(s, n, len, align)) return n;
    }
    return sure;
}

/* New record n for [off, off + len), behind block `before` in address order; free and not in the tree yet. */
static void insert_after(struct space *s, uint32_t before, uint32_t n, uint64_t off, uint64_t len) {
    struct space_block *b = space_at(s, n), *p = space_at(s, before);
    b->off = off;
    b->len = len;
    b->state = SPACE_FREE;
    b->prev = before;
    b->next = p->next;
    if (p->next) space_at(s, p->next)->prev = n;
    p->next = n;
    index_add(s, n);
}

/* Take block n out of the list and the index, and give its record back.  It is not the first. */
static void forget(struct space *s, uint32_t n) {
    struct space_block *b = space_at(s, n);
    index_remove(s, n);
    space_at(s, b->prev)->next = b->next;
    if (b->next) space_at(s, b->next)->prev = b->prev;
    slab_put(&s->blocks, n);
}

static void count_used(struct space *s, uint64_t len) {
    s->used += len;
    if (s->used > s->used_peak) s->used_peak = s->used;
}

uint32_t space_alloc(struct space *s, uint64_t len, uint64_t align) {
    uint64_t size = s->end - s->begin;
    if (len > size || align > UINT64_MAX / 4) return 0;
    len = round_up(len, SPACE_GRAIN);
    if (align < SPACE_GRAIN) align = SPACE_GRAIN;
    uint32_t n = choose(s, len, align);
    if (!n) return 0;
    uint64_t start = aligned_start(s, n, align), off = space_at(s, n)->off, end = off + space_at(s, n)->len;

    uint32_t part = 0,
             tail = 0; /* records that this cut needs: the part behind a head gap, and what is left behind it */
    if (index_reserve(s, 2) != 0) return 0;
    if (start != off && !(part = slab_new(&s->blocks))) return 0;
    if (start + len != end && !(tail = slab_new(&s->blocks))) {
        if (part) slab_put(&s->blocks, part);
        return 0;
    }

    tree_remove(s, n);
    if (part) {
        space_at(s, n)->len = start - off;
        tree_add(s, n);
        insert_after(s, n, part, start, len);
        n = part;
    }
    struct space_block *b = space_at(s, n);
    b->len = len;
    b->state = SPACE_LIVE;
    b->tag = 0;
    b->event = 0;
    b->scope = 0;
    if (tail) {
        insert_after(s, n, tail, start + len, end - start - len);
        tree_add(s, tail);
    }
    count_used(s, len);
    s->n_used++;
    return n;
}

void space_free(struct space *s, uint32_t block) {
    struct space_block *b = space_at(s, block);
    s->used -= b->len;
    s->n_used--;
    b->state = SPACE_FREE;
    uint32_t next = b->next, prev = b->prev;
    if (next && space_at(s, next)->state == SPACE_FREE) {
        tree_remove(s, next);
        b->len += space_at(s, next)->len;
        forget(s, next);
    }
    if (prev && space_at(s, prev)->state == SPACE_FREE) {
        tree_remove(s, prev);
        space_at(s, prev)->len += b->len;
        forget(s, block);
        block = prev;
    }
    tree_add(s, block);
}

uint32_t space_find_inside(const struct space *s, uint64_t off) {
    if (off < s->begin || off >= s->end) return 0;
    uint32_t n = space_find(s, off);
    if (n) return n;
    for (n = s->first; n && off - space_at(s, n)->off >= space_at(s, n)->len; n = space_at(s, n)->next) {
    }
    return n;
}

/* Free block n now starts at off and reaches as far as before. */
static void move_start(struct space *s, uint32_t n, uint64_t off) {
    struct space_block *b = space_at(s, n);
    tree_remove(s, n);
    index_remove(s, n);
    b->len = b->off + b->len - off;
    b->off = off;
    index_add(s, n);
    tree_add(s, n);
}

static int grow(struct space *s, struct space_block *b, uint64_t len) {
    uint32_t next = b->next;
    if (!next || space_at(s, next)->state != SPACE_FREE || len - b->len > space_at(s, next)->len) return 0;
    uint64_t more = len - b->len;
    if (more == space_at(s, next)->len) {
        tree_remove(s, next);
        forget(s, next);
    } else {
        move_start(s, next, b->off + len);
    }
    b->len = len;
    count_used(s, more);
    return 1;
}

static int shrink(struct space *s, uint32_t block, uint64_t len) {
    struct space_block *b = space_at(s, block);
    uint64_t less = b->len - len;
    if (b->next && space_at(s, b->next)->state == SPACE_FREE) {
        move_start(s, b->next, b->off + len);
    } else {
        if (index_reserve(s, 1) != 0) return 0;
        uint32_t tail = slab_new(&s->blocks);
        if (!tail) return 0;
        insert_after(s, block, tail, b->off + len, less);
        tree_add(s, tail);
    }
    b->len = len;
    s->used -= less;
    return 1;
}

int space_resize(struct space *s, uint32_t block, uint64_t len) {
    struct space_block *b = space_at(s, block);
    if (len > s->end - s->begin) return 0;
    len = round_up(len, SPACE_GRAIN);
    if (len > b->len) return grow(s, b, len);
    return len == b->len ? 1 : shrink(s, block, len);
}

uint32_t space_next_free(const struct space *s, uint32_t n, uint64_t len) {
    return n ? tree_next(s, n) : tree_at_least(s, len);
}

uint64_t space_largest_free(const struct space *s) {
    uint32_t n = s->root;
    if (!n) return 0;
    while (space_at(s, n)->right)
        n = space_at(s, n)->right;
    return space_at(s, n)->len;
}

/* ----------------------------------------------------------------------------------------------- checking */

static int is_record(const struct space *s, uint32_t n) {
    return n != 0 && n < s->blocks.next;
}

/* Black nodes on every way down from n, or -1.  budget: nodes that may still be met; ends a walk through a broken tree.
 */
static int check_tree(const struct space *s, uint32_t n, uint32_t up, uint64_t *budget, int depth) {
    if (!n) return 0;
    if (!is_record(s, n) || *budget == 0 || depth > 64) return -1;
    --*budget;
    const struct space_block *b = space_at(s, n);
    if (b->up != up || b->state != SPACE_FREE) return -1;
    int left = check_tree(s, b->left, n, budget, depth + 1), right = check_tree(s, b->right, n, budget, depth + 1);
    if (left < 0 || left != right) return -1;
    if (b->color == RED && (is_red(s, b->left) || is_red(s, b->right))) return -1; /* both are records by now */
    return left + (b->color == BLACK);
}

static const char *check_tree_order(const struct space *s, uint64_t n_free) {
    uint64_t budget = n_free;
    if (check_tree(s, s->root, 0, &budget, 0) < 0 || is_red(s, s->root)) return "tree of free blocks is damaged";
    if (budget != 0) return "a free block is not in the tree";
    if (!s->root) return NULL;
    for (uint32_t n = tree_at_least(s, 0), next; (next = tree_next(s, n)) != 0; n = next)
        if (!sorts_before(space_at(s, n), space_at(s, next))) return "tree of free blocks is out of order";
    return NULL;
}

/* So that a look-up ends, and meets records only. */
static const char *check_index(const struct space *s) {
    uint64_t n = 0;
    if (!is_pow2((uint64_t)s->index_mask + 1)) return "the size of the index is damaged";
    for (uint64_t i = 0; i <= s->index_mask; i++) {
        if (s->index[i] && !is_record(s, s->index[i])) return "the index holds something that is not a block";
        n += s->index[i] != 0;
    }
    if (n != s->index_used || n > s->index_mask) return "the index holds something that is not a block";
    return NULL;
}

const char *space_check(const struct space *s) {
    const char *damage = check_index(s);
    if (damage) return damage;
    uint64_t at = s->begin, used = 0, n_used = 0, n_free = 0, n_blocks = 0;
    uint32_t prev = 0;
    for (uint32_t n = s->first; n; prev = n, n = space_at(s, n)->next) {
        if (!is_record(s, n) || n_blocks++ == s->blocks.live) return "list of blocks is damaged";
        const struct space_block *b = space_at(s, n);
        if (b->prev != prev) return "list of blocks is damaged backwards";
        if (b->off != at) return "blocks leave a gap or overlap";
        if (b->len == 0 || b->len % SPACE_GRAIN || b->off % SPACE_GRAIN || b->len > s->end - at)
            return "a block has an impossible length";
        if (space_find(s, b->off) != n) return "a block is not in the index";
        if (b->state == SPACE_FREE) {
            n_free++;
            if (prev && space_at(s, prev)->state == SPACE_FREE) return "two free blocks are neighbours";
        } else if (b->state >= SPACE_LIVE && b->state <= SPACE_HELD) {
            n_used++;
            used += b->len;
        } else {
            return "a block has an unknown state";
        }
        at += b->len;
    }
    if (at != s->end) return "blocks do not reach the end of the range";
    if (n_blocks != s->blocks.live) return "a record belongs to no block";
    if (n_blocks != s->index_used) return "the index holds something that is not a block";
    if (used != s->used || n_used != s->n_used) return "bytes or number of used blocks are miscounted";
    return check_tree_order(s, n_free);
}
