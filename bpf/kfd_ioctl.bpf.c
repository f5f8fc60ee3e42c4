// SPDX-License-Identifier: GPL-2.0-only OR MIT
// What the KFD's ioctls cost each process, by command, and the queues that each has.
//
// Attached to the driver's function where the kernel allows that, else to the entry and exit of
// every system call, where what is no ioctl leaves after a few instructions (kfd_ioctl_probe.cpp
// chooses). Queue ids are read from the process's own memory after the driver has returned: good
// enough to count by, not to decide by.
#include "kernel_types.h"
//
#include <linux/bpf.h>
//
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

#include "kfd_ioctl.h"

#define SYS_IOCTL 16
#define SYS_IOCTL_32 54 /* of a system call that 32-bit programs make, as by int 0x80 */
#define SYS_IOCTL_X32 (0x40000000 | 514)
#define TS_COMPAT 2
#define KFD_IOC_TYPE 'K'

enum { compute = 0, compute_aql = 2 };  // types of queues; the others take no CU mask
enum { create_queue = 0x02, destroy_queue = 0x03, set_cu_mask = 0x1a };

// Where the driver's structures have the queue's id.
#define GPU_ID_OF_CREATE 36  // followed by the type
#define QUEUE_ID_OF_CREATE 52
#define QUEUE_ID_OF_OTHERS 0

// Set before load. A character device is recognised by its number, anything else that stands at
// /dev/kfd by the file system that it is on.
const volatile __u32 kfd_device = 0;
const volatile __u32 kfd_file_system = 0;

struct {
  __uint(type, BPF_MAP_TYPE_HASH);
  __uint(max_entries, kfd_ioctl_max_costs);
  __type(key, struct kfd_ioctl_cost_key);
  __type(value, struct kfd_ioctl_cost);
} costs SEC(".maps");

struct {
  __uint(type, BPF_MAP_TYPE_HASH);
  __uint(max_entries, kfd_ioctl_max_processes);
  __type(key, struct kfd_ioctl_process);
  __type(value, struct kfd_ioctl_queues);
} queues SEC(".maps");

// The ioctl that a thread is in.
struct call {
  __u64 start_ns;  // 0: in none
  __u64 argument;
  __u32 number;
  __u32 reserved;
};
struct {
  __uint(type, BPF_MAP_TYPE_TASK_STORAGE);
  __uint(map_flags, BPF_F_NO_PREALLOC);
  __type(key, int);
  __type(value, struct call);
} calls SEC(".maps");

// Calls and queues that were not seen: there was no memory, or there were too many.
__u64 unseen = 0;

// Too large for the stack of a program.
static const struct kfd_ioctl_cost no_cost;
static const struct kfd_ioctl_queues no_queues;

static __always_inline int is_kfd(struct task_struct* task, unsigned long fd) {
  struct fdtable* table = task->files->fdt;
  if (fd >= table->max_fds) return 0;
  struct file* file = NULL;
  if (bpf_probe_read_kernel(&file, sizeof(file), table->fd + fd) != 0 || file == NULL) return 0;
  struct inode* inode = BPF_CORE_READ(file, f_inode);
  if (kfd_device != 0) return BPF_CORE_READ(inode, i_rdev) == kfd_device;
  return BPF_CORE_READ(inode, i_sb, s_dev) == kfd_file_system;
}

static __always_inline struct kfd_ioctl_process process_of(struct task_struct* task) {
  const struct kfd_ioctl_process process = {
      .start_ns = BPF_CORE_READ(task, group_leader, start_boottime), .tgid = task->tgid};
  return process;
}

// Nobody's entries are made before the programs are attached.
static __always_inline struct kfd_ioctl_cost* cost_of_nobody(__u32 number) {
  const struct kfd_ioctl_cost_key key = {.number = number};
  return bpf_map_lookup_elem(&costs, &key);
}

static __always_inline struct kfd_ioctl_cost* cost_of(const struct kfd_ioctl_cost_key* key) {
  struct kfd_ioctl_cost* cost = bpf_map_lookup_elem(&costs, key);
  if (cost != NULL) return cost;
  bpf_map_update_elem(&costs, key, &no_cost, BPF_NOEXIST);
  cost = bpf_map_lookup_elem(&costs, key);
  return cost != NULL ? cost : cost_of_nobody(key->number);
}

static __always_inline __u32 bucket_of(__u64 ns) {
  __u32 bucket = 0;
  if (ns >> 32) return kfd_ioctl_buckets - 1;
  if (ns >> 16) bucket += 16, ns >>= 16;
  if (ns >> 8) bucket += 8, ns >>= 8;
  if (ns >> 4) bucket += 4, ns >>= 4;
  if (ns >> 2) bucket += 2, ns >>= 2;
  if (ns >> 1) bucket += 1;
  return bucket;
}

// Notes which GPU a new queue is on. False when the process has queues on too many.
static __always_inline int note_gpu(struct kfd_ioctl_queues* of_process, __u32 queue,
                                    __u32 gpu_id) {
  for (__u32 gpu = 0; gpu < kfd_ioctl_gpus; ++gpu) {
    if (of_process->gpu_ids[gpu] != gpu_id &&
        __sync_val_compare_and_swap(&of_process->gpu_ids[gpu], 0, gpu_id) != 0)
      continue;
    of_process->gpu_of[queue & (kfd_ioctl_queue_words * 64 - 1)] = gpu;
    return 1;
  }
  return 0;
}

static __always_inline void account_queue(const struct kfd_ioctl_process* process,
                                          const struct call* call) {
  const __u32 number = call->number;
  if (number != create_queue && number != destroy_queue && number != set_cu_mask) return;
  __u32 queue = 0;
  const __u64 place =
      call->argument + (number == create_queue ? QUEUE_ID_OF_CREATE : QUEUE_ID_OF_OTHERS);
  if (bpf_probe_read_user(&queue, sizeof(queue), (const void*)place) != 0) return;
  const __u32 word = queue / 64;
  if (word >= kfd_ioctl_queue_words) return;
  struct kfd_ioctl_queues* of_process = bpf_map_lookup_elem(&queues, process);
  if (of_process == NULL) {
    bpf_map_update_elem(&queues, process, &no_queues, BPF_NOEXIST);
    of_process = bpf_map_lookup_elem(&queues, process);
  }
  if (of_process == NULL) {
    __sync_fetch_and_add(&unseen, 1);
    return;
  }
  const __u64 bit = 1ULL << (queue % 64);
  if (number == set_cu_mask) {
    __sync_fetch_and_or(&of_process->masked[word], bit);
    return;
  }
  if (number == create_queue) {
    struct {
      __u32 gpu_id;
      __u32 type;
    } created = {};
    if (bpf_probe_read_user(&created, sizeof(created),
                            (const void*)(call->argument + GPU_ID_OF_CREATE)) != 0)
      return;
    if (created.type != compute && created.type != compute_aql) return;
    if (!note_gpu(of_process, queue, created.gpu_id)) {
      __sync_fetch_and_add(&unseen, 1);
      return;
    }
  }
  // A queue begins without a mask.
  __sync_fetch_and_and(&of_process->masked[word], ~bit);
  if (number == create_queue)
    __sync_fetch_and_or(&of_process->alive[word], bit);
  else
    __sync_fetch_and_and(&of_process->alive[word], ~bit);
}

static __always_inline void begins(struct task_struct* task, __u32 command, __u64 argument) {
  struct call* call = bpf_task_storage_get(&calls, task, NULL, BPF_LOCAL_STORAGE_GET_F_CREATE);
  if (call == NULL) {
    __sync_fetch_and_add(&unseen, 1);
    return;
  }
  call->argument = argument;
  call->number = command & 0xff;  // all that the driver looks at
  if (call->number >= kfd_ioctl_commands) call->number = kfd_ioctl_commands - 1;
  call->start_ns = bpf_ktime_get_ns();
}

static __always_inline void ends(struct task_struct* task, long result) {
  struct call* call = bpf_task_storage_get(&calls, task, NULL, 0);
  if (call == NULL || call->start_ns == 0) return;
  const __u64 took_ns = bpf_ktime_get_ns() - call->start_ns;
  call->start_ns = 0;

  const struct kfd_ioctl_cost_key key = {.process = process_of(task), .number = call->number};
  if (result >= 0) account_queue(&key.process, call);
  struct kfd_ioctl_cost* cost = cost_of(&key);
  if (cost == NULL) {
    __sync_fetch_and_add(&unseen, 1);
    return;
  }
  __sync_fetch_and_add(&cost->count, 1);
  if (result < 0) {
    __sync_fetch_and_add(&cost->errors, 1);
    __sync_fetch_and_add(&cost->errors_ns, took_ns);
  }
  __sync_fetch_and_add(&cost->total_ns, took_ns);
  // Of two threads at once the shorter may win: then it was the longest but one.
  if (took_ns > cost->max_ns) cost->max_ns = took_ns;
  __sync_fetch_and_add(&cost->buckets[bucket_of(took_ns) & (kfd_ioctl_buckets - 1)], 1);
}

SEC("fentry/kfd_ioctl")
int BPF_PROG(function_begins, struct file* file, unsigned int command, unsigned long argument) {
  begins(bpf_get_current_task_btf(), command, argument);
  return 0;
}
SEC("fexit/kfd_ioctl")
int BPF_PROG(function_ends, struct file* file, unsigned int command, unsigned long argument,
             long result) {
  ends(bpf_get_current_task_btf(), result);
  return 0;
}

SEC("tp_btf/sys_enter")
int BPF_PROG(call_begins, struct pt_regs* regs, long id) {
  if (id != SYS_IOCTL && id != SYS_IOCTL_32 && id != SYS_IOCTL_X32) return 0;
  struct task_struct* task = bpf_get_current_task_btf();
  const int is_32_bit = (task->thread_info.status & TS_COMPAT) != 0;
  if (is_32_bit != (id == SYS_IOCTL_32)) return 0;
  const __u64 fd = is_32_bit ? (__u32)regs->bx : regs->di;
  const __u32 command = (__u32)(is_32_bit ? regs->cx : regs->si);
  // The driver does not look at the type. A file system has other files too, as the render node.
  if (kfd_device == 0 && (command >> 8 & 0xff) != KFD_IOC_TYPE) return 0;
  if (is_kfd(task, fd)) begins(task, command, is_32_bit ? (__u32)regs->dx : regs->dx);
  return 0;
}

SEC("tp_btf/sys_exit")
int BPF_PROG(call_ends, struct pt_regs* regs, long result) {
  if (regs->orig_ax == SYS_IOCTL || regs->orig_ax == SYS_IOCTL_32 || regs->orig_ax == SYS_IOCTL_X32)
    ends(bpf_get_current_task_btf(), result);
  return 0;
}

// What a process leaves behind goes to nobody's entry. Threads that end at the same time may all
// find themselves the last: what counts is who deletes the entry.
SEC("tp_btf/sched_process_exit")
int BPF_PROG(kfd_process_ends, struct task_struct* task) {
  if (BPF_CORE_READ(task, signal, live.counter) != 0) return 0;
  struct kfd_ioctl_cost_key key = {.process = process_of(task)};
  bpf_map_delete_elem(&queues, &key.process);
  for (__u32 number = 0; number < kfd_ioctl_commands; ++number) {
    key.number = number;
    const struct kfd_ioctl_cost* left = bpf_map_lookup_elem(&costs, &key);
    if (left == NULL) continue;
    const struct kfd_ioctl_cost cost = *left;
    struct kfd_ioctl_cost* nobody = cost_of_nobody(number);
    if (bpf_map_delete_elem(&costs, &key) != 0 || nobody == NULL) continue;
    __sync_fetch_and_add(&nobody->count, cost.count);
    __sync_fetch_and_add(&nobody->errors, cost.errors);
    __sync_fetch_and_add(&nobody->total_ns, cost.total_ns);
    __sync_fetch_and_add(&nobody->errors_ns, cost.errors_ns);
    if (cost.max_ns > nobody->max_ns) nobody->max_ns = cost.max_ns;
    for (int bucket = 0; bucket < kfd_ioctl_buckets; ++bucket)
      __sync_fetch_and_add(&nobody->buckets[bucket], cost.buckets[bucket]);
  }
  return 0;
}

// The driver destroys a process's queues with the memory that it replaces.
SEC("tp_btf/sched_process_exec")
int BPF_PROG(kfd_process_executes, struct task_struct* task) {
  const struct kfd_ioctl_process process = process_of(task);
  bpf_map_delete_elem(&queues, &process);
  return 0;
}

char LICENSE[] SEC("license") = "Dual MIT/GPL";
