/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sympool: one memory pool per process of a job, reachable by every other process of the job.
 *
 * Terms.  rank: number of a process in its job, 0 .. world size - 1.  pool: the memory of one rank, offsets
 * [0, local_mem_size).  symmetric region: offsets [0, meta_size) of every pool; an allocation there has the
 * same offset on every rank.  local heap: offsets [meta_size, local_mem_size), allocated by each rank on its
 * own.  group (syp_comm): an ordered subset of the ranks that runs collectives.  attached: between a
 * successful syp_init*() and syp_finalize().
 *
 * Rules that hold for every function, and are not repeated below:
 *   - Sizes and offsets are bytes, counts are elements, times are nanoseconds of CLOCK_MONOTONIC.
 *   - A function that returns int returns SYP_OK (0) or a negative SYP_E* code.  Every failure leaves the reason in
 *     the calling thread's error record: see syp_last_error().  Success leaves the record alone.
 *   - Nothing here exits or aborts the process (but for SYMPOOL_DEBUG_DAMAGE=abort on heap damage), writes to stdout,
 *     installs a signal handler, or changes affinity or locale.  Nothing blocks without a deadline.
 *   - Threads: every function may be called from any thread at any time, except that one group must not be
 *     used by two threads at once (the second caller gets SYP_EBUSY).
 *   - Fork: in a forked child of an attached process every function that returns a status returns SYP_EFORKED, except
 *     syp_last_error(); syp_has() gives 0, syp_rank() -1 and syp_world_size() 0; allocations come from memory
 *     private to the child, and freeing a block of the parent's pool does nothing.
 *   - No function may be called from a signal handler.
 *   - Public structs start with their own size, set by the caller; a later library reads and writes only that much.
 */
#ifndef SYMPOOL_H
#define SYMPOOL_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define SYP_API __attribute__((visibility("default")))
#else
#define SYP_API
#endif

#define SYP_VERSION_MAJOR 0
#define SYP_VERSION_MINOR 1
#define SYP_VERSION_PATCH 0
#define SYP_VERSION (SYP_VERSION_MAJOR * 10000 + SYP_VERSION_MINOR * 100 + SYP_VERSION_PATCH)

/* ------------------------------------------------------------------------------------------------ status */

/* Results, grouped by how far the damage reaches.  Values are fixed for ever. */
enum {
    SYP_OK = 0,

    /* this call only; the object is as it was before */
    SYP_EINVAL = -1,       /* an argument is outside its documented range */
    SYP_ENOMEM = -2,       /* no memory for the request (pool full, limit reached, or commit refused) */
    SYP_ESTATE = -3,       /* not legal now: not attached, already attached with other arguments, scope not open */
    SYP_EUNSUPPORTED = -4, /* this build, machine or configuration cannot do it */
    SYP_EBUSY = -5,        /* another thread is using this group; or a straggler may still write the memory asked for */
    SYP_EFOREIGN = -6,     /* the pointer is not (or no longer) a live block of the pool */
    SYP_EREACH = -7,       /* the rank is not reachable by load and store: it runs on another host */
    SYP_ECANCELED = -8,    /* the call was cancelled (syp_cancel); seen in the texts of other members' SYP_EMISMATCH only */

    /* the ranks disagree; every member of the group got this error for this call, the group stays usable */
    SYP_EMISMATCH = -20, /* different operation, count, type, root or arguments on different ranks */
    SYP_EDIVERGED = -21, /* the ranks' sequences of symmetric allocations differ */

    /* this group is broken: every later operation on it fails at once */
    SYP_EPEER = -40,    /* a member died or left */
    SYP_ETIMEOUT = -41, /* the deadline passed; the error names who is behind */
    SYP_EABORTED = -42, /* another member gave the group up, for the cause in the error text */

    /* this process has no job */
    SYP_EFORKED = -60, /* forked child of an attached process */
    SYP_EJOIN = -61,   /* the ranks could not be brought together; the error lists why */

    /* the system refused */
    SYP_ESYS = -80 /* a system call failed; see syp_error.sys_errno */
};

/*
 * The error record of a thread.  Ownership: a copy, the caller's.
 */
typedef struct syp_error {
    size_t size;        /* in: sizeof(syp_error) as the caller knows it */
    int code;           /* SYP_E*, or SYP_OK when nothing failed yet in this thread */
    int sys_errno;      /* errno of the refused system call, 0 when none */
    int rank;           /* rank of this process, -1 when not attached */
    int peer;           /* the first rank to blame, -1 when none */
    int64_t peer_pid;   /* its process id, 0 when unknown */
    uint64_t comm_id;   /* group of the failed operation, 0 = world or none */
    uint64_t sequence;  /* number of the operation on its group (first = 1), or of the symmetric call; 0 when none */
    char operation[24]; /* "allreduce", "barrier", "init", "symm_malloc" ... */
    char text[1024];    /* "what was attempted: what was observed; what to turn"; NUL-terminated */
} syp_error;

/*
 * Copy the calling thread's last error into *out.
 * out: not NULL, out->size set.  Returns SYP_OK, or SYP_EINVAL (out NULL or out->size too small for `code`).
 * Never blocks.  In a forked child: the child's own record.
 */
SYP_API int syp_last_error(syp_error *out);

/*
 * Text of the calling thread's last error, "" when none.  Ownership: the library's; valid until this thread's next
 * failing call or its end.  Never NULL, never blocks.
 */
SYP_API const char *syp_error_text(void);

/* Name of a status code ("SYP_ETIMEOUT"), "unknown status" for anything else.  Static storage, never NULL. */
SYP_API const char *syp_strerror(int code);

/* SYP_VERSION of the library that was loaded, which may differ from the header's.  Never fails. */
SYP_API int syp_version(void);

/* Capabilities, answered for the present state of this process. */
enum {
    SYP_CAP_ATTACHED = 1,   /* between syp_init and syp_finalize */
    SYP_CAP_HUGE_PAGES = 2, /* the pool asks for, and the kernel granted, pages larger than the base page */
    SYP_CAP_NUMA = 3,       /* the pool is placed on the NUMA node(s) of this rank */
    SYP_CAP_SAME_VA = 4,    /* every rank's pools happen to lie at the same virtual addresses in every rank */
    SYP_CAP_ZERO_COPY = 5,  /* all ranks of the world reach each other's pools by load and store */
    SYP_CAP_STATS = 6       /* a statistics segment is published for the `sympool` tool */
};

/* 1 if the capability (SYP_CAP_*) holds now, 0 if not or unknown.  Never fails, never blocks, usable at any time. */
SYP_API int syp_has(int capability);

/* Options of one call.  In: size.  NULL instead of a struct means all defaults. */
typedef struct syp_call {
    size_t size;
    int64_t timeout_ns; /* deadline of this call; 0 = the job's default (SYMPOOL_TIMEOUT, 300 s); < 0 = SYP_EINVAL */
} syp_call;

/* --------------------------------------------------------------------------------------------- lifecycle */

/*
 * Everything an attach can be told.  Start from SYP_CONFIG_INIT; a field left at its initial value is taken from
 * the environment (SYMPOOL_*, then the launcher's own variables), then from the setting's default.
 */
typedef struct syp_config {
    size_t size;             /* sizeof(syp_config) */
    int rank;                /* 0 .. n_ranks - 1; -1 = environment */
    int n_ranks;             /* 1 .. 1024; -1 = environment */
    uint64_t local_mem_size; /* bytes of this rank's pool, 64 KiB .. 1 TiB; may differ between ranks; 0 = setting */
    uint64_t meta_size;      /* bytes of the symmetric region, <= local_mem_size, equal on all ranks;
                                SYP_META_DEFAULT = setting; 0 is legal: collectives work, symmetric allocations fail */
    const char *addr;        /* "tcp://ip:port", "tcp://[v6]:port", "ip:port", "host:port"; NULL = environment; with
                                no address anywhere, ranks of one host and one job meet without one */
    const char *job;         /* name of the job, up to 63 characters [A-Za-z0-9._:-]; NULL = environment */
    int64_t join_timeout_ns; /* deadline of the whole join; 0 = SYMPOOL_JOIN_TIMEOUT */
    int64_t timeout_ns;      /* default deadline of a collective; 0 = SYMPOOL_TIMEOUT */
    int listen_fd;           /* rank 0: a listening stream socket to adopt instead of binding addr; -1 = none */
} syp_config;

#define SYP_META_DEFAULT UINT64_MAX
#define SYP_CONFIG_INIT {sizeof(syp_config), -1, -1, 0, SYP_META_DEFAULT, NULL, NULL, 0, 0, -1}

/*
 * Join the job, reserve this rank's pool, map every peer's pool.
 *
 * rank, n_ranks: 0 <= rank < n_ranks <= 1024.  local_mem_size: bytes of the pool, rounded up to the page size; only
 * reserved, memory is committed as it is allocated (SYMPOOL_COMMIT=full commits all of it here).  meta_size: bytes of
 * the symmetric region inside it.  ip_port: where rank 0 listens and the others connect; NULL as in syp_config.addr.
 *
 * Returns SYP_OK; also when already attached with the same arguments.
 *   SYP_EINVAL   an argument is out of range, or contradicts the SYMPOOL_* environment
 *   SYP_ESTATE   already attached with different arguments (the text lists the differences);
 *                or another copy of this library (another file, or one inside the program) is attached in this process (named);
 *                or another living process holds this rank (named): a program started by a rank inherits its environment, but not its
 *                place in the job; it stays private
 *   SYP_EJOIN    the join failed.  Every rank that could be reached gets the same list: missing ranks, duplicate
 *                ranks with both addresses, different world sizes, meta sizes or versions, address not usable
 *   SYP_EPEER    a rank died during the join
 *   SYP_EUNSUPPORTED  SYMPOOL_SECRET_FILE is set, but the module sympool-auth.so is missing
 *   SYP_ENOMEM, SYP_ESYS  this rank's memory could not be reserved; the others get SYP_EJOIN naming this rank
 * On failure the process is as before the call.
 * Collective: called once by every rank of the job.  Blocks up to SYMPOOL_JOIN_TIMEOUT (30 s).
 */
SYP_API int syp_init(int rank, int n_ranks, uint64_t local_mem_size, uint64_t meta_size, const char *ip_port);

/* As syp_init, from a config.  config: not NULL, not kept.  Also SYP_EINVAL when config->size is unknown. */
SYP_API int syp_init_config(const syp_config *config);

/*
 * As syp_init, all from the environment: SYMPOOL_RANK, SYMPOOL_WORLD_SIZE, SYMPOOL_ADDR, SYMPOOL_LOCAL_MEM_SIZE,
 * SYMPOOL_META_SIZE, or torchrun's, Open MPI's, PMI's or Slurm's variables (the innermost launcher wins).
 * With no launcher at all: a job of one rank.
 */
SYP_API int syp_init_env(void);

/*
 * Leave the job: wait for the peers (bounded by SYMPOOL_FINALIZE_TIMEOUT, 5 s), unmap their pools, release ours.
 * All groups are destroyed, and so is the symmetric region with its blocks.  Live blocks of the local heap stay readable and
 * writable, as memory of this process alone, until freed; freeing them after finalize is legal.  Requests are no more: those of the world are completed
 * first, in the same time; other groups that have some which have not ended are aborted.
 * Returns SYP_OK; SYP_ESTATE when not attached; SYP_EBUSY when another thread of this process is inside a collective, or stays inside another
 * call for longer than SYMPOOL_FINALIZE_TIMEOUT (then nothing was done); SYP_EPEER, SYP_ETIMEOUT or another error of the last meeting when a peer died, stayed away or broke the world, in which case
 * this process has left all the same.
 * Threads: others may call anything meanwhile: their calls find the process attached or not, as if they had come earlier or later.  What they
 * read must be theirs: symmetric blocks and peers' memory are gone when this returns.
 * Collective over the world.  A later syp_init is legal.
 */
SYP_API int syp_finalize(void);

/*
 * Make the world whole again after ranks have died: meet with their replacements, which call syp_init*() with the rank, sizes, address and job of those they
 * replace, and start a new world group.  Also: start one after a timeout or an abort broke it, or take in more ranks.
 *
 * n_ranks: 0 = as many as now; more, up to SYMPOOL_MAX_WORLD: the new ones call syp_init*() with that number.  call: NULL or options; its deadline
 * is that of the whole call (default SYMPOOL_JOIN_TIMEOUT).
 * Those who stay keep their pools, with content; a replacement starts with an empty heap and with the symmetric blocks that the others have, at
 * the same offsets, content unspecified.  Its pool may be as large as the largest at the start, or SYMPOOL_MAX_LOCAL_MEM_SIZE.  Peer pointers into
 * replaced ranks stay valid addresses of the new process's pool.  Groups that a replaced rank was in are broken (SYP_EPEER); other groups go on.
 * Returns SYP_OK.  On failure the world stays, or is, broken, and the call can be made again:
 *   SYP_EINVAL     n_ranks; a replacement's pool is too large
 *   SYP_EBUSY      a thread of this process is inside a collective; a replaced rank's former process (named) still lives, and has not left by
 *                  syp_finalize
 *   SYP_EJOIN, SYP_EPEER, SYP_ETIMEOUT  somebody did not come, or died meanwhile, as for syp_init
 *   SYP_EDIVERGED  those who stay have not made the same symmetric calls
 *   SYP_ENOMEM, SYP_ESYS, SYP_EREACH (a world of several hosts), SYP_ESTATE (not attached)
 * Collective over all ranks that live.  Threads: others may allocate, free and look things up meanwhile, but not use groups.
 */
SYP_API int syp_rejoin(int n_ranks, const syp_call *call);

/* Rank of this process in its job, -1 when not attached. */
SYP_API int syp_rank(void);

/* Number of ranks of the job, 0 when not attached. */
SYP_API int syp_world_size(void);

/* ------------------------------------------------------------------------------------------------ memory */

/*
 * Allocate len bytes in the pool: in the innermost open scope of this thread, else in the local heap.  Before
 * syp_init and after syp_finalize: in memory private to this process, which stays valid across both.
 * len: 0 is treated as 1.  The block is aligned to 64 bytes; its content is unspecified.
 * Returns the block, or NULL: SYP_ENOMEM (pool exhausted, or the system refused to commit memory),
 * SYP_EINVAL (len above PTRDIFF_MAX).  Ownership: the caller's, until syp_free.  Never contacts a peer.
 */
SYP_API void *syp_malloc(size_t len);

/* As syp_malloc for n * len bytes, all zero.  SYP_EINVAL when the product overflows. */
SYP_API void *syp_calloc(size_t n, size_t len);

/* As syp_malloc, aligned to align bytes: a power of two, 1 .. 1 GiB, else SYP_EINVAL. */
SYP_API void *syp_aligned_alloc(size_t align, size_t len);

/*
 * Change the size of block p, in place where possible, keeping min(old, new) bytes of content.  p NULL: syp_malloc(len).
 * len 0: frees p, returns NULL.  On failure returns NULL and p is unchanged: SYP_ENOMEM; SYP_EFOREIGN (p is not a live
 * block); SYP_EINVAL (len too large); SYP_EUNSUPPORTED (p is a symmetric block).
 */
SYP_API void *syp_realloc(void *p, size_t len);

/*
 * Free a block of any of the functions above.  NULL: nothing.  A pointer that is not the start of a live block (foreign,
 * interior, freed twice) is reported in the log and the error record (SYP_EFOREIGN), counted, and otherwise ignored.  A
 * block of the symmetric region is freed as by syp_symm_free.  errno is kept.
 */
SYP_API void syp_free(void *p);

/* Bytes usable at p, at least what was asked for; 0 with SYP_EFOREIGN when p is not the start of a live block or NULL. */
SYP_API size_t syp_usable_size(const void *p);

/* Where an address lies. */
enum { SYP_WHERE_HEAP = 1, SYP_WHERE_SYMMETRIC = 2, SYP_WHERE_PRIVATE = 3 };

typedef struct syp_location {
    size_t size;     /* in: sizeof(syp_location) */
    int rank;        /* whose pool; this process's own rank for its own blocks; -1 for private memory */
    int where;       /* SYP_WHERE_* */
    uint64_t offset; /* from the start of that pool */
    void *block;     /* start of the live block that contains the address; NULL when free, or in a peer's pool */
    size_t len;      /* its usable size, 0 when block is NULL */
} syp_location;

/*
 * Whose memory is this?  p: any address, also foreign or NULL; it is not dereferenced.  out: not NULL, size set.
 * Returns SYP_OK, SYP_EFOREIGN (not in any pool this process knows), SYP_EINVAL.  O(1) up to finding the block.
 */
SYP_API int syp_owner(const void *p, syp_location *out);

/*
 * The same offset in another rank's pool.  p: an address in this rank's pool.  rank: 0 .. world size - 1.
 * Returns an address valid until syp_finalize, or NULL: SYP_ESTATE (not attached), SYP_EINVAL (rank), SYP_EFOREIGN (p is
 * not in this rank's pool, or its offset lies beyond the peer's pool), SYP_EREACH (the peer is not reachable by
 * load and store).  Reading what a peer writes needs synchronisation: a barrier or another collective between.
 */
SYP_API void *syp_peer_ptr(const void *p, int rank);

/* One block of a walk. */
typedef struct syp_block {
    size_t size;        /* sizeof(syp_block) of the library */
    void *ptr;          /* start */
    size_t len;         /* bytes */
    int where;          /* SYP_WHERE_* */
    int live;           /* 1 allocated, 0 free */
    uint64_t scope[2];  /* pool id of the scope it was allocated in, {0, 0} = none */
} syp_block;

/*
 * Call fn for every block, live and free, pool by pool, in address order inside each.  fn returns 0 to go on, anything
 * else to stop.  fn runs under the pool's lock: it must not call into sympool.
 * Returns SYP_OK, what fn returned, or SYP_EINVAL (fn NULL).
 */
SYP_API int syp_walk(int (*fn)(void *arg, const syp_block *block), void *arg);

/*
 * Verify every invariant of this process's allocator structures.  Returns SYP_OK, or SYP_ESTATE with the first damage
 * in the error text.  Costs time linear in the number of blocks, under the pool's lock.
 */
SYP_API int syp_check(void);

/*
 * Give free memory back to the system now, as malloc_trim does: all chunks (SYMPOOL_COMMIT_CHUNK) of this process's pools in which
 * no block lies, those of the symmetric region too; blocks kept for reuse are freed for it.  Offsets and live blocks stay; memory that is
 * quarantined, or in hugetlb pages, is kept.  A peer that reads given back memory sees zeros.  Without this call memory
 * goes back when it was unused for SYMPOOL_DECAY.
 * Returns the bytes given back, 0 when there were none, or SYP_EFORKED.  Takes about 0.1 ms per MiB; others allocate meanwhile.
 */
SYP_API int64_t syp_trim(void);

/* Figures of this rank's pool.  In: size. */
typedef struct syp_pool_info {
    size_t size;
    uint64_t local_mem_size, meta_size; /* as attached, rounded to pages */
    uint64_t symm_used, symm_peak;      /* bytes of live blocks in the symmetric region */
    uint64_t heap_used, heap_peak;      /* bytes of live blocks in the local heap */
    uint64_t heap_cached;               /* bytes kept for reuse by the caching layer */
    uint64_t committed, committed_peak; /* bytes of physical memory asked for, both together */
    uint64_t used_peak;                 /* symm_peak + heap_peak: no more was ever in use at one time */
    uint64_t largest_free;              /* largest block the heap could serve now, cached blocks not counted */
    uint64_t n_live;                    /* live blocks, both together */
    uint64_t overhead;                  /* memory beside the pool: control and statistics segments, staging areas in use */
    uint64_t bad_frees;                 /* foreign, interior and double frees seen since load */
    uint64_t heap_quarantined;          /* freed bytes kept back because a straggler of a broken operation may write them */
} syp_pool_info;

/* Fill *out.  Returns SYP_OK, SYP_EINVAL (out NULL or size unknown), SYP_ESTATE (not attached). */
SYP_API int syp_pool_query(syp_pool_info *out);

/* ----------------------------------------------------------------------------------------- symmetric heap */

/*
 * Allocate len bytes at the same offset on every rank, agreed by all ranks: either all succeed or all get the same
 * error.  len: 1 .. meta_size, equal on all ranks.  64-byte aligned, content unspecified.
 * Returns the block in this rank's pool (the others': syp_peer_ptr), or NULL:
 *   SYP_ESTATE    not attached
 *   SYP_EUNSUPPORTED  meta_size is 0
 *   SYP_EINVAL    len is 0 or above PTRDIFF_MAX (then the other ranks get SYP_EMISMATCH)
 *   SYP_ENOMEM    region full, or one rank (named) could not commit memory
 *   SYP_EMISMATCH different len or alignment (the text lists rank and value)
 *   SYP_EDIVERGED earlier symmetric calls differ
 *   SYP_EBUSY     the block would lie where, on one rank (named), a straggler of a broken operation may still write
 *   SYP_EPEER, SYP_ETIMEOUT, SYP_EABORTED, SYP_EBUSY  as for any operation on the world group
 * Collective over the world.  Blocks like a collective.
 */
SYP_API void *syp_symm_malloc(size_t len);

/* As syp_symm_malloc, n * len bytes, zero on this rank when the call returns on this rank. */
SYP_API void *syp_symm_calloc(size_t n, size_t len);

/* As syp_symm_malloc with an alignment: a power of two, 1 .. 1 GiB, relative to the start of the pool. */
SYP_API void *syp_symm_aligned_alloc(size_t align, size_t len);

/*
 * As syp_symm_malloc without any communication: correct when every rank makes the same sequence of symmetric calls
 * (allocations and frees).  That is checked: each rank keeps a digest of its sequence, and the next collective of a group
 * compares them at the smallest number of calls any member has made; a difference is SYP_EDIVERGED on every
 * member, naming the first diverging call, the ranks and both sizes.  A rank that is ahead is legal until a barrier
 * on the world.  Counts as a call also when it fails.
 * Returns the block or NULL: SYP_ESTATE, SYP_EUNSUPPORTED, SYP_EINVAL, SYP_ENOMEM, SYP_EBUSY (as in
 * syp_symm_malloc; on some ranks only it is a divergence).  Never blocks.
 */
SYP_API void *syp_symm_malloc_local(size_t len);

/*
 * Free a symmetric block.  A symmetric call like the allocations: every rank frees the same blocks in the same order,
 * which is checked the same way.  NULL: nothing, and not counted.  Never blocks: a rank that still uses the peer's block
 * must be waited for first (barrier).
 * Returns SYP_OK, SYP_ESTATE, SYP_EFOREIGN (not the start of a live symmetric block; not counted as a call).
 */
SYP_API int syp_symm_free(void *p);

/* Start of the pool of `rank` in this process, NULL as for syp_peer_ptr.  The symmetric region is its first meta_size bytes. */
SYP_API void *syp_pool_base(int rank);

/* ------------------------------------------------------------------------------------------------- scopes */

/* A pool id: two words, as PyTorch's MempoolId_t.  {0, 0} is not a legal id. */
typedef struct syp_pool_id {
    uint64_t hi, lo;
} syp_pool_id;

enum { SYP_SCOPE_HEAP = 0, SYP_SCOPE_SYMMETRIC = 1 };

/* Attributes of a scope.  In: size. */
typedef struct syp_scope_attr {
    size_t size;
    int kind; /* SYP_SCOPE_HEAP: local heap.  SYP_SCOPE_SYMMETRIC: as syp_symm_malloc_local */
} syp_scope_attr;

/*
 * From now on this thread's syp_malloc family and syp_torch_malloc allocate in pool `id`, until the matching
 * syp_scope_end.  Scopes nest up to 32 deep, newest first; the same id may be entered again.  Threads started meanwhile
 * are not affected.  attr: NULL = SYP_SCOPE_HEAP.
 * Returns SYP_OK, SYP_EINVAL (id {0,0}, attr), SYP_ESTATE (not attached; nested too deep), SYP_ENOMEM.
 */
SYP_API int syp_scope_begin(syp_pool_id id, const syp_scope_attr *attr);

/*
 * End the innermost scope of this thread, which must be `id`.  Its blocks stay valid.
 * Returns SYP_OK, SYP_EINVAL (id), SYP_ESTATE (not attached, no scope open, or the innermost is another: the text names both).
 */
SYP_API int syp_scope_end(syp_pool_id id);

/* ------------------------------------------------------------------------------------------------- groups */

/* A group of ranks.  Opaque; SYP_COMM_WORLD means all ranks.  Destroyed by syp_comm_destroy or syp_finalize. */
typedef struct syp_comm syp_comm;

#define SYP_COMM_WORLD ((syp_comm *)0)

/*
 * Make a group of the given ranks of `parent`.
 * parent: group or SYP_COMM_WORLD.  ranks: n distinct ranks of `parent` (numbered within parent, in the order they get in the
 * new group), the same list on every member of parent; not kept.  n: 1 .. size of parent.
 * out: not NULL; set to the group on members, to NULL on the others.
 * Returns SYP_OK, SYP_EINVAL, SYP_ESTATE, SYP_EMISMATCH (different lists), SYP_ENOMEM (more than 127 groups on a member),
 * SYP_EPEER, SYP_ETIMEOUT, SYP_EABORTED, SYP_EBUSY, SYP_EDIVERGED; SYP_EREACH: a listed rank is on another host.
 * Collective over parent; on a world of several hosts over the ranks of this host, which list ranks of it.  Blocks up to the default
 * deadline.  Threads: may make groups of different parents at the same time.
 */
SYP_API int syp_comm_create(syp_comm *parent, const int *ranks, int n, syp_comm **out);

/* The group of the n ranks start, start + stride, start + 2 * stride ... of `parent`.  As syp_comm_create otherwise; stride may be negative, not 0 unless n is 1. */
SYP_API int syp_comm_split_strided(syp_comm *parent, int start, int stride, int n, syp_comm **out);

/*
 * Destroy a group.  comm: from syp_comm_create; NULL (the world): SYP_EINVAL.  Each member calls it when it is done; it does
 * not wait for the others.  Works on a broken group, whose requests are then no more.  Returns SYP_OK, SYP_EINVAL, SYP_EBUSY (also: it has requests that were
 * not waited for, and is not broken), SYP_ESTATE.
 */
SYP_API int syp_comm_destroy(syp_comm *comm);

/* This process's number in the group, 0 .. size - 1; or SYP_ESTATE when not attached. */
SYP_API int syp_comm_rank(const syp_comm *comm);

/* Number of members; or SYP_ESTATE when not attached. */
SYP_API int syp_comm_size(const syp_comm *comm);

/* -------------------------------------------------------------------------------------------- collectives */

/* Element types.  Values are fixed for ever. */
typedef enum syp_dtype {
    SYP_FLOAT64 = 1,
    SYP_FLOAT32 = 2,
    SYP_FLOAT16 = 3,  /* IEEE 754 binary16 */
    SYP_BFLOAT16 = 4, /* the upper half of a binary32 */
    SYP_INT32 = 5,
    SYP_INT64 = 6,
    SYP_INT8 = 7,
    SYP_UINT8 = 8,
    SYP_UINT32 = 9,
    SYP_UINT64 = 10
} syp_dtype;

/*
 * Reductions.  Elements are combined in member order 0 .. n - 1, always; so all members get the same bits, whatever the size, the buffers' places, the
 * algorithm, the processor's instructions and the number of threads.  16-bit floats are combined in binary32 and rounded once, to nearest even.
 * Integers wrap around.  min and max: a NaN on any member gives the quiet NaN, and -0 is below +0.  avg: the sum divided by n, of integers
 * truncated towards zero.
 */
typedef enum syp_op { SYP_SUM = 1, SYP_MIN = 2, SYP_MAX = 3, SYP_PROD = 4, SYP_AVG = 5 } syp_op;

/*
 * The collectives.  Common to all:
 *   comm: group or SYP_COMM_WORLD.  Every member calls the same operations on a group in the same order; different
 *   groups are independent of each other.  call: NULL or options.
 *   Buffers: any memory.  A buffer inside this rank's pool is used where it lies (zero copy); otherwise the data is staged.
 *   Any mixture over the ranks is legal.  No alignment is needed.  NULL is legal where no byte is read or written.
 *   In place: where the result is as large as the input (all-reduce, reduce, broadcast) send == recv.  Where the input is one member's part of the
 *   result (all-gather, gather at the root) send is that part of recv; where the result is one member's part of the input (reduce-scatter, scatter
 *   at the root) recv is that part of send.  Every other overlap of send and recv is SYP_EINVAL.
 *   Lengths are bytes, counts are elements; all are 64 bits wide and equal on all members, unless said otherwise.
 *   Returns SYP_OK: the operation is complete on this rank, its buffers are the caller's again.  The others may still be about to store their results: whoever
 *   loads those through syp_peer_ptr or syp_get waits in a barrier first.
 *     SYP_EINVAL     an argument (named); the other members get SYP_EMISMATCH for this operation
 *     SYP_EMISMATCH  members called different operations or arguments: the text has who asked what
 *     SYP_EDIVERGED  see syp_symm_malloc_local
 *     SYP_EPEER      a member died (rank, pid, operation, sequence in the record); the group is broken
 *     SYP_ETIMEOUT   the deadline passed; the text names who is behind and where; the group is broken
 *     SYP_EABORTED   another member gave up; the group is broken
 *     SYP_EBUSY      another thread of this process is inside an operation of this group
 *     SYP_ENOMEM     no memory for a staging area on this rank; the other members get SYP_EMISMATCH
 *     SYP_ESTATE     not attached, or the group was destroyed
 *   An operation that returned SYP_OK holds exact data, also when the next one fails.
 *   Blocks up to the deadline.
 */

/* Wait until every member has called.  On the world it also checks that all have made the same number of symmetric calls. */
SYP_API int syp_barrier(syp_comm *comm, const syp_call *call);

/* Copy len bytes from `buf` of member `root` (0 .. size - 1 in the group) to `buf` of all others. */
SYP_API int syp_broadcast(void *buf, size_t len, int root, syp_comm *comm, const syp_call *call);

/* Reduce `count` elements over all members; every member gets the result.  send, recv: count elements each. */
SYP_API int syp_allreduce(const void *send, void *recv, size_t count, syp_dtype dtype, syp_op op, syp_comm *comm,
                          const syp_call *call);

/* As syp_allreduce, but member `root` alone gets the result; recv is ignored on the others. */
SYP_API int syp_reduce(const void *send, void *recv, size_t count, syp_dtype dtype, syp_op op, int root, syp_comm *comm,
                       const syp_call *call);

/*
 * Reduce over all members and scatter the result: member m gets elements m * count .. (m + 1) * count - 1.
 * send: size * count elements.  recv: count elements.
 */
SYP_API int syp_reduce_scatter(const void *send, void *recv, size_t count, syp_dtype dtype, syp_op op, syp_comm *comm,
                               const syp_call *call);

/* As syp_reduce_scatter with parts of different sizes: member m gets counts[m] elements, which follow those of member m - 1.  counts: one for each
 * member, the same list on all; not kept. */
SYP_API int syp_reduce_scatterv(const void *send, void *recv, const size_t *counts, syp_dtype dtype, syp_op op, syp_comm *comm,
                                const syp_call *call);

/* Every member gets the len bytes of all: those of member m lie at m * len of recv, which has size * len bytes. */
SYP_API int syp_allgather(const void *send, void *recv, size_t len, syp_comm *comm, const syp_call *call);

/* As syp_allgather with parts of different sizes: member m gives lens[m] bytes, which lie behind those of member m - 1.  lens: one for each member, the
 * same list on all; not kept. */
SYP_API int syp_allgatherv(const void *send, void *recv, const size_t *lens, syp_comm *comm, const syp_call *call);

/*
 * All-gather along a dimension that is not the first: each member gives `rows` rows of len bytes, send_stride bytes apart; row r of member m goes to
 * byte r * recv_stride + m * len of recv.  send_stride: >= len, 0 = len.  recv_stride: >= size * len, 0 = size * len.  The strides may differ between
 * members.  One synchronisation for the whole call, not one a row.  Not in place.
 */
SYP_API int syp_allgather_rows(const void *send, void *recv, size_t rows, size_t len, size_t send_stride, size_t recv_stride, syp_comm *comm,
                               const syp_call *call);

/* Member `root` gets the len bytes of all: those of member m at m * len of recv, which is ignored on the others. */
SYP_API int syp_gather(const void *send, void *recv, size_t len, int root, syp_comm *comm, const syp_call *call);

/* Member m gets len bytes from m * len of member `root`'s send, which is ignored on the others. */
SYP_API int syp_scatter(const void *send, void *recv, size_t len, int root, syp_comm *comm, const syp_call *call);

/* Every member gives len bytes to each: member m's recv has at k * len what lies at m * len of member k's send.  Not in place. */
SYP_API int syp_alltoall(const void *send, void *recv, size_t len, syp_comm *comm, const syp_call *call);

/*
 * As syp_alltoall with parts of any size and place.  send_lens[m] bytes at send_offs[m] of send go to member m; recv_lens[k] bytes from member k go to
 * recv_offs[k] of recv.  Each list has one entry for each member.  send_lens[m] here must equal recv_lens of this member there: else SYP_EMISMATCH
 * on all.  Parts of recv must not overlap.
 */
SYP_API int syp_alltoallv(const void *send, const size_t *send_lens, const size_t *send_offs, void *recv, const size_t *recv_lens,
                          const size_t *recv_offs, syp_comm *comm, const syp_call *call);

/* -------------------------------------------------------------------------------- non-blocking collectives */

/* A collective in progress.  Opaque; made by the functions below, ended by syp_wait, or by syp_test or syp_cancel that says so. */
typedef struct syp_request syp_request;

/*
 * Non-blocking forms.  Each does what the function without the i does, with these differences:
 *   Returns at once: SYP_OK and *out = the request, or what can be told at once (SYP_EINVAL out NULL; SYP_ESTATE; SYP_ENOMEM, too many requests:
 *   a group has room for 64) and *out = NULL.  Everything else is the result of syp_wait or syp_test.
 *   Buffers, and the lists of the v forms, are the library's until the request has ended.
 *   Requests of a group take place in the order in which they were made, also against blocking calls: a blocking call completes those before it.
 *   Progress is made inside syp_test and syp_wait of any request of the group, and inside its blocking calls; there is no thread that does.
 *   The deadline of `call` begins when the operation begins.  Threads: as the blocking forms.
 */
SYP_API int syp_ibarrier(syp_comm *comm, const syp_call *call, syp_request **out);
SYP_API int syp_ibroadcast(void *buf, size_t len, int root, syp_comm *comm, const syp_call *call, syp_request **out);
SYP_API int syp_iallreduce(const void *send, void *recv, size_t count, syp_dtype dtype, syp_op op, syp_comm *comm, const syp_call *call,
                           syp_request **out);
SYP_API int syp_ireduce(const void *send, void *recv, size_t count, syp_dtype dtype, syp_op op, int root, syp_comm *comm, const syp_call *call,
                        syp_request **out);
SYP_API int syp_ireduce_scatter(const void *send, void *recv, size_t count, syp_dtype dtype, syp_op op, syp_comm *comm, const syp_call *call,
                                syp_request **out);
SYP_API int syp_ireduce_scatterv(const void *send, void *recv, const size_t *counts, syp_dtype dtype, syp_op op, syp_comm *comm,
                                 const syp_call *call, syp_request **out);
SYP_API int syp_iallgather(const void *send, void *recv, size_t len, syp_comm *comm, const syp_call *call, syp_request **out);
SYP_API int syp_iallgatherv(const void *send, void *recv, const size_t *lens, syp_comm *comm, const syp_call *call, syp_request **out);
SYP_API int syp_iallgather_rows(const void *send, void *recv, size_t rows, size_t len, size_t send_stride, size_t recv_stride, syp_comm *comm,
                                const syp_call *call, syp_request **out);
SYP_API int syp_igather(const void *send, void *recv, size_t len, int root, syp_comm *comm, const syp_call *call, syp_request **out);
SYP_API int syp_iscatter(const void *send, void *recv, size_t len, int root, syp_comm *comm, const syp_call *call, syp_request **out);
SYP_API int syp_ialltoall(const void *send, void *recv, size_t len, syp_comm *comm, const syp_call *call, syp_request **out);
SYP_API int syp_ialltoallv(const void *send, const size_t *send_lens, const size_t *send_offs, void *recv, const size_t *recv_lens,
                           const size_t *recv_offs, syp_comm *comm, const syp_call *call, syp_request **out);

/*
 * Make progress and ask.  *done: 1 = the request has ended, is no more, and the return value is its result as of the blocking form; 0 = not yet, and the
 * return value is SYP_OK.  Returns also SYP_EINVAL (a NULL), SYP_ESTATE (not a request of this attach), SYP_EBUSY (another thread is inside an
 * operation of the group; *done 0).  Never blocks.
 */
SYP_API int syp_test(syp_request *request, int *done);

/* Run the request to its end; it is no more.  Returns its result as of the blocking form, or as syp_test.  Blocks up to the operation's deadline. */
SYP_API int syp_wait(syp_request *request);

/*
 * Take back a request that has not begun on this rank.  Returns SYP_OK: it is no more, and the other members get SYP_EMISMATCH for the operation, naming this
 * rank; unless all have cancelled it.  The group stays usable.  SYP_EBUSY: it has begun, and goes on (syp_comm_abort ends it, and the group).  SYP_EINVAL,
 * SYP_ESTATE as syp_test.  Never blocks.
 */
SYP_API int syp_cancel(syp_request *request);

/* ------------------------------------------------------------------------------------------ between two ranks */

/*
 * Copy len bytes from this process's memory to rank `rank`'s pool, or the other way round.
 * The remote place is given as the address, in this rank's own pool, of the same offset: for symmetric blocks simply the block.  The other side is any
 * memory.  rank: of the world; this rank, too.
 * Returns SYP_OK: syp_put: the bytes are stored, and seen by whoever sees a later signal, barrier or other operation of this thread; syp_get: they have arrived.
 *   SYP_EINVAL    rank; NULL with a length; the place is not inside the pools of both ranks
 *   SYP_EREACH    the rank is on another host
 *   SYP_EPEER     the rank is known to have died or left
 *   SYP_ESTATE
 * Not collective: nobody else takes part.  Never blocks.  Concurrent access to the same bytes is the callers' business.
 */
SYP_API int syp_put(void *dst, const void *src, size_t len, int rank);
SYP_API int syp_get(void *dst, const void *src, size_t len, int rank);

/*
 * Signals: 64-bit words in pools, set by one rank and waited for by another; what was put before is seen by whoever has seen the signal.
 * signal: address in this rank's own pool, 8-byte aligned, of the same offset as the word at `rank`.
 * syp_signal_set stores, syp_signal_add adds (atomic among adds of all ranks).  Returns and errors as syp_put.
 */
SYP_API int syp_signal_set(uint64_t *signal, uint64_t value, int rank);
SYP_API int syp_signal_add(uint64_t *signal, uint64_t value, int rank);
/* As syp_put, then as syp_signal_set. */
SYP_API int syp_put_signal(void *dst, const void *src, size_t len, uint64_t *signal, uint64_t value, int rank);

enum { SYP_EQ = 1, SYP_NE = 2, SYP_GT = 3, SYP_GE = 4, SYP_LT = 5, SYP_LE = 6 };

/*
 * Wait until this rank's own word compares so with `value`.  cmp: SYP_EQ ... SYP_LE, unsigned.  from: the rank of the world that is expected to set it, whose death
 * ends the wait; -1 = any, then the death of any rank does.  seen: NULL, or gets the word's value.  call: NULL or options.
 * Returns SYP_OK; SYP_EPEER (it died or left; the word was looked at afterwards once more); SYP_ETIMEOUT (the text has the word's value); SYP_EREACH (it is on
 * another host); SYP_EINVAL; SYP_ESTATE.
 * Not collective.  Blocks up to the deadline.  No group is broken by its failure.
 */
SYP_API int syp_signal_wait(const uint64_t *signal, int cmp, uint64_t value, int from, uint64_t *seen, const syp_call *call);

/*
 * Channels: signals without memory of one's own, for each ordered pair of members of a group; channel: 0 .. SYP_CHANNELS - 1.  Each notification is waited for once:
 * a channel counts.  syp_channel_notify never blocks; syp_channel_wait waits for the next notification of member `from`.  A notification ends with the group at the
 * member that gave it: one that nobody has begun to wait for before that may be lost (then SYP_EPEER).
 * Returns SYP_OK and, as above, SYP_EINVAL, SYP_EREACH, SYP_EPEER, SYP_ETIMEOUT, SYP_ESTATE; a broken group's error.  Threads: one waiter for a channel at a time.
 */
enum { SYP_CHANNELS = 4 };
SYP_API int syp_channel_notify(syp_comm *comm, int to, int channel);
SYP_API int syp_channel_wait(syp_comm *comm, int from, int channel, const syp_call *call);

/*
 * Send and receive lists of buffers.  syp_send gives the n buffers of the list to member `to` of the group, which takes them with syp_recv, a list
 * of as many buffers of the same lengths; a mismatch is SYP_EMISMATCH on both, with both lists' lengths, and nothing is moved.  Messages of a pair arrive in the
 * order in which they were sent.  A send returns when its message was taken.
 * Two members that send to each other at the same time both use syp_sendrecv (with itself: a copy).
 * n: 0 .. 1024.  lens: bytes.
 * Returns SYP_OK: the buffers are the caller's again; SYP_EINVAL, SYP_EMISMATCH, SYP_EPEER, SYP_ETIMEOUT, SYP_EREACH, SYP_EBUSY (another thread of this process
 * sends to, or receives from, the same member), SYP_ENOMEM, SYP_ESTATE; a broken group's error.  A transfer that two members began and did not complete breaks
 * nothing but this pair: later ones between the two, in that direction, fail with SYP_EABORTED.  When a member gives a transfer up because a third one died or
 * did not come in time, its partner gets that error, too, with that rank.  A refused call (SYP_EINVAL, SYP_EMISMATCH, SYP_EBUSY, SYP_ENOMEM)
 * breaks nothing.
 * Collective over the two members only; other members and collectives of the group go on.  Blocks up to the deadline.
 */
SYP_API int syp_send(const void *const *bufs, const size_t *lens, int n, int to, syp_comm *comm, const syp_call *call);
SYP_API int syp_recv(void *const *bufs, const size_t *lens, int n, int from, syp_comm *comm, const syp_call *call);
SYP_API int syp_sendrecv(const void *const *send_bufs, const size_t *send_lens, int n_send, int to, void *const *recv_bufs,
                         const size_t *recv_lens, int n_recv, int from, syp_comm *comm, const syp_call *call);

/* ----------------------------------------------------------------------------------------- after a failure */

/*
 * A group is broken once an operation on it returned SYP_EPEER, SYP_ETIMEOUT or SYP_EABORTED: every later operation on it fails at once with that
 * error.  Those who live go on in these steps (after MPI's user-level failure mitigation, whose terms they use):
 *
 *     syp_comm_shrink       a working group of those who live
 *     syp_rejoin            or: replacements for those who died, and the world is whole again
 */

/*
 * Break the group for all members: their running or next operation on it returns SYP_EABORTED naming this rank.  From any thread, also while
 * another one is inside an operation of the group, which then returns the same.  Not collective.  Returns at once.
 * Returns SYP_OK (also when it was broken already), SYP_ESTATE.
 */
SYP_API int syp_comm_abort(syp_comm *comm);

/*
 * May the buffers of the operation that broke the group be written or reused?  A member that was stopped, or has not noticed the failure yet, may still
 * store into this rank's receive buffer until it has left the operation or died.  Until then the library keeps freed blocks that overlap the buffer from
 * reuse (syp_pool_info.heap_quarantined); what the caller keeps using is his to watch.
 * Returns SYP_OK: nobody stores into them any more (also when the group is not broken).  SYP_EBUSY: the text names the member, or another thread of this
 * process is inside an operation of the group.  SYP_ESTATE.
 * Not collective, never blocks; ask again.
 */
SYP_API int syp_comm_buffers_safe(syp_comm *comm);

/*
 * One view for all members that live, also on a broken group: the bitwise and of all their *flags, and the set of members that are gone (syp_comm_failed).
 * flags: not NULL; in and out.  Either all that return SYP_OK have the same values, whoever dies meanwhile and whenever, or it is as if the call was not made.
 * Returns SYP_OK, SYP_EINVAL; SYP_ETIMEOUT (a living member, named, did not call; the same call can be tried again, and then gets what the others got
 * meanwhile); SYP_EMISMATCH (members called syp_comm_shrink); SYP_EABORTED (the others gave this rank up); SYP_EREACH, SYP_EBUSY, SYP_ESTATE.
 * Collective over the members that live.  Blocks up to the deadline.
 */
SYP_API int syp_comm_agree(syp_comm *comm, uint64_t *flags, const syp_call *call);

/*
 * Members that the last syp_comm_agree or syp_comm_shrink of this group found dead, left or given up: the same on every member.
 * ranks: room for n ranks of the world, NULL when n is 0.  Returns how many there are, which may be more than n; or SYP_EINVAL, SYP_ESTATE,
 * SYP_EBUSY (another thread of this process is inside an operation of the group).
 */
SYP_API int syp_comm_failed(syp_comm *comm, int *ranks, int n);

enum { SYP_SHRINK_GIVE_UP = 1 }; /* members that live but do not come before the deadline are left out, too */

/*
 * A group of the members that live, in their old order.  comm: the group; broken by this call if it is not yet, so that members inside an operation
 * come, too.  It stays for syp_comm_failed and syp_comm_buffers_safe until destroyed.  flags: 0 or SYP_SHRINK_GIVE_UP, equal on all members.
 * out: not NULL; the new group, a group like any other.
 * Returns SYP_OK; SYP_EBUSY (a member, named, lives but did not come before the deadline; shrink again, or give it up: it then gets SYP_EABORTED when it
 * comes, and its late stores reach only quarantined buffers); SYP_ENOMEM (no group slot free on all); SYP_EMISMATCH, SYP_EABORTED, SYP_EREACH, SYP_EINVAL,
 * SYP_ESTATE.
 * Collective over the members that live.  Blocks up to the deadline (call, or the default); with SYP_SHRINK_GIVE_UP two seconds longer, while those who came
 * settle it.
 */
SYP_API int syp_comm_shrink(syp_comm *comm, unsigned flags, const syp_call *call, syp_comm **out);

/* ---------------------------------------------------------------------------------------------- pluggable */

/*
 * PyTorch's CUDAPluggableAllocator ABI: the two entry points it is given by name.
 *
 * syp_torch_malloc: size bytes, aligned to 512, for work queued on `stream` of `device`.  size: 0 or above PTRDIFF_MAX gives NULL.  device: an
 * opaque number here, recorded.  stream: an opaque key; a block freed on a stream is reused on the same stream first.
 * Before syp_init and after syp_finalize it serves private memory.  NULL when exhausted: one line in the log says what was
 * asked, what is free and what to turn.  Never contacts a peer, never takes a lock of the host.
 *
 * syp_torch_free: gives the block back, wherever it came from; unknown pointers are logged, counted and ignored.  size, device: as given to
 * malloc (checked only in the log); stream: the stream the block was allocated on.
 */
SYP_API void *syp_torch_malloc(size_t size, int device, void *stream);
SYP_API void syp_torch_free(void *ptr, size_t size, int device, void *stream);

/* ------------------------------------------------------------------------------------------------ logging */

enum { SYP_LOG_ERROR = 1, SYP_LOG_WARN = 2, SYP_LOG_INFO = 3, SYP_LOG_DEBUG = 4 };

/*
 * Send the library's log lines to fn instead of stderr.  fn NULL: back to stderr.  text: NUL-terminated, no newline, valid
 * during the call.  fn may run in any thread that uses the library and must not call into it.  SYMPOOL_LOG still chooses the level.
 */
SYP_API void syp_log_set(void (*fn)(void *arg, int level, const char *text), void *arg);

/*
 * One line in the library's log, for libraries built on this one.  level: SYP_LOG_*, anything else counts as SYP_LOG_ERROR.  text: without a
 * newline; NULL = "".  Whether and where it appears is decided by SYMPOOL_LOG, SYMPOOL_LOG_FILE and syp_log_set, as for all lines.
 */
SYP_API void syp_log(int level, const char *text);

#ifdef __cplusplus
}
#endif
#endif
