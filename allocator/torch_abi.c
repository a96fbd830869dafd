/* SPDX-License-Identifier: Apache-2.0 */
/*
 * PyTorch's CUDAPluggableAllocator ABI (torch/csrc/cuda/CUDAPluggableAllocator.cpp): plain C entries, called from any thread with no lock of the
 * host held, before attach as well as after finalize.  PyTorch does not turn NULL into an out-of-memory error when the allocator is swapped
 * globally, so an exhausted pool says so in the log.
 */
#include "allocator/memory.h"
#include "allocator/sympool.h"
#include "pool/base/log.h"
#include "pool/base/status.h"

#include <errno.h>

#define TORCH_ALIGN 512 /* kMinBlockSize of PyTorch's caching allocator: what kernels may assume */

void *syp_torch_malloc(size_t size, int device, void *stream) {
    if (size == 0) return NULL;
    if (size > PTRDIFF_MAX) {
        err_set(SYP_EINVAL, "torch_malloc of %zu bytes: above PTRDIFF_MAX (a negative size?)", size);
        err_operation("torch_malloc");
        return NULL;
    }
    void *p = memory_alloc(size, TORCH_ALIGN, (uint64_t)(uintptr_t)stream);
    if (!p) {
        static struct log_limit limit = LOG_RATE(10);
        err_operation("torch_malloc");
        log_warn_limited(&limit, "torch_malloc of %B for device %d failed: %s", (unsigned long long)size, device, err_record()->text);
    }
    return p;
}

void syp_torch_free(void *ptr, size_t size, int device, void *stream) {
    (void)device; /* one pool serves every device number */
    (void)stream; /* the block remembers the stream it was allocated for */
    int saved = errno;
    if (ptr && memory_free(ptr) != SYP_OK) {
        err_operation("torch_free");
        log_debug("torch_free of %p, said to have %zu bytes, ignored", ptr, size);
    }
    errno = saved;
}
