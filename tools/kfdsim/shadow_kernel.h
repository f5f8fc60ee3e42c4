/* Shadow kernels: host functions that compute what a GPU kernel would have computed.
 *
 * kfdsim executes no GPU instructions. A shared library given with `kfdsim run --shadow LIBRARY`
 * exports `kfdsim_shadow_kernels`: host functions by the symbol names of kernels in the code
 * objects that a client loads. When a kernel with such a name ends, kfdsim calls the function; its
 * writes are in GPU memory before the packet's completion signal changes. The kernel's time does
 * not depend on the function's.
 *
 * The functions run inside kfdsim, on its thread, while the whole simulated GPU stands still: they
 * must return, and must not throw. Plain C, for any compiler. */
#ifndef ECLIP_KFDSIM_SHADOW_KERNEL_H
#define ECLIP_KFDSIM_SHADOW_KERNEL_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* One dispatch. Addresses are GPU addresses, which are those of the client process. */
typedef struct kfdsim_launch {
  uint32_t grid_size[3];      /* work items */
  uint32_t workgroup_size[3]; /* work items */
  uint32_t group_segment_bytes;
  uint32_t reserved;
  uint64_t kernarg; /* address of the kernel's arguments, laid out as its compiler laid them out */

  /* The `bytes` bytes at `address`, to be read or to be written; NULL when they are not all mapped
   * on the GPU, or when `bytes` is 0. The pointers are good until the function returns. */
  const void* (*read)(const struct kfdsim_launch* launch, uint64_t address, size_t bytes);
  void* (*write)(const struct kfdsim_launch* launch, uint64_t address, size_t bytes);
} kfdsim_launch;

typedef struct kfdsim_shadow_kernel {
  const char* name; /* symbol name of the kernel, mangled, without ".kd" */
  /* 0, or anything else when memory could not be reached: the client then gets a GPU memory
   * fault. */
  int (*run)(const kfdsim_launch* launch);
} kfdsim_shadow_kernel;

/* What the library exports: entries, ended by one whose name is NULL. */
extern const kfdsim_shadow_kernel kfdsim_shadow_kernels[];

#ifdef __cplusplus
}
#endif

#endif
