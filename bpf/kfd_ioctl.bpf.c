// SPDX-License-Identifier: GPL-2.0-only OR MIT
// Counts the ioctls that each process makes on the KFD, by command number.
//
// Attached to the entry of every system call, because kernels may refuse everything closer to the
// driver; what is not an ioctl of the KFD's type leaves after a few instructions. 32-bit system
// calls (int 0x80) are not seen.
#include "kernel_types.h"
//
#include <linux/bpf.h>
//
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

#include "kfd_ioctl.h"

#define SYS_IOCTL 16
#define KFD_IOC_TYPE 'K'

// Set before load. A character device is recognised by its number, anything else that stands at
// /dev/kfd by the file system that it is on.
const volatile __u32 kfd_device = 0;
const volatile __u32 kfd_file_system = 0;

struct {
  __uint(type, BPF_MAP_TYPE_HASH);
  __uint(max_entries, kfd_ioctl_max_keys);
  __type(key, struct kfd_ioctl_key);
  __type(value, __u64);
} counts SEC(".maps");

// KFD ioctls that found `counts` full.
__u64 uncounted = 0;

static __always_inline int is_kfd(struct task_struct* task, unsigned long fd) {
  struct fdtable* table = task->files->fdt;
  if (fd >= table->max_fds) return 0;
  struct file* file = NULL;
  if (bpf_probe_read_kernel(&file, sizeof(file), table->fd + fd) != 0 || file == NULL) return 0;
  struct inode* inode = BPF_CORE_READ(file, f_inode);
  if (kfd_device != 0) return BPF_CORE_READ(inode, i_rdev) == kfd_device;
  return BPF_CORE_READ(inode, i_sb, s_dev) == kfd_file_system;
}

SEC("tp_btf/sys_enter")
int BPF_PROG(count_kfd_ioctl, struct pt_regs* regs, long id) {
  if (id != SYS_IOCTL) return 0;
  const unsigned long command = regs->si;
  if ((command >> 8 & 0xff) != KFD_IOC_TYPE) return 0;
  struct task_struct* task = bpf_get_current_task_btf();
  if (!is_kfd(task, regs->di)) return 0;

  const struct kfd_ioctl_key key = {.tgid = task->tgid, .number = command & 0xff};
  __u64* count = bpf_map_lookup_elem(&counts, &key);
  if (count == NULL) {
    const __u64 zero = 0;
    bpf_map_update_elem(&counts, &key, &zero, BPF_NOEXIST);
    count = bpf_map_lookup_elem(&counts, &key);
  }
  if (count == NULL)
    __sync_fetch_and_add(&uncounted, 1);
  else
    __sync_fetch_and_add(count, 1);
  return 0;
}

char LICENSE[] SEC("license") = "Dual MIT/GPL";
