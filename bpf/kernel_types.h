/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/* The few kernel types that the programs look into. Offsets are relocated at load time (CO-RE), so
 * that one object runs on all kernels with BTF; only names and nesting must be right.
 */
#ifndef ECLIP_BPF_KERNEL_TYPES_H
#define ECLIP_BPF_KERNEL_TYPES_H

#include <linux/types.h>

#define __VMLINUX_H__ /* for bpf_tracing.h: pt_regs below has the kernel's names */

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct super_block {
  __u32 s_dev; /* dev_t: major << 20 | minor */
};

struct inode {
  unsigned short i_mode;
  __u32 i_rdev;
  struct super_block* i_sb;
};

struct file {
  struct inode* f_inode;
};

struct fdtable {
  unsigned int max_fds;
  struct file** fd;
};

struct files_struct {
  struct fdtable* fdt;
};

typedef struct {
  int counter;
} atomic_t;

struct signal_struct {
  atomic_t live; /* threads that have not ended */
};

struct thread_info {
  __u32 status; /* x86: TS_COMPAT in a 32-bit system call */
};

struct task_struct {
  struct thread_info thread_info;
  int pid;
  int tgid;
  struct files_struct* files;
  struct task_struct* group_leader;
  struct signal_struct* signal;
  __u64 start_boottime;
};

/* Of the amdgpu module. */
enum kfd_queue_type {
  KFD_QUEUE_TYPE_COMPUTE = 0, /* only these have CU masks */
};
struct kfd_node { /* from Linux 6.5 */
  unsigned int id;
};
struct kfd_dev { /* before */
  unsigned int id;
};
struct queue_properties {
  enum kfd_queue_type type;
  unsigned int queue_id;
};
struct process_queue_manager {
  struct kfd_process* process;
};
struct kfd_process {
  struct process_queue_manager pqm;
};
struct queue {
  struct kfd_process* process;
  struct kfd_dev* device;
  struct queue_properties properties;
};

/* x86-64: system call arguments. */
struct pt_regs {
  unsigned long bx;
  unsigned long cx;
  unsigned long ax;
  unsigned long si;
  unsigned long di;
  unsigned long dx;
  unsigned long orig_ax;
};

#pragma clang attribute pop

#endif
