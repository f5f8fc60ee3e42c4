// SPDX-License-Identifier: GPL-2.0-only OR MIT
// Holds the CU-masked queues of all processes to a budget: refuses a mask before the driver sees
// the call, and counts by what the driver has done.
//
// A call's way: `verdict` (an LSM or fmod_ret program) decides by the command's number and by who
// calls, never by the caller's memory, which another thread could change in between. For a new mask
// it reserves one of the budget. `changed`, where the driver has set the mask and still holds its
// lock, makes the reservation the queue's; `release`, when the call returns, gives back what no
// queue has taken. `destroyed` and `gone` give back a queue's.
//
// Only programs of one kind of verdict and one kind of accounting are loaded (budget_guard.cpp).
#include "kernel_types.h"
//
#include <linux/bpf.h>
//
#include <asm-generic/errno.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

#include "guard.h"

#define SYS_IOCTL 16
#define SYS_IOCTL_32 54
#define SYS_IOCTL_X32 (0x40000000 | 514)
#define KFD_IOC_TYPE 'K'
#define S_IFMT 0170000
#define S_IFCHR 0020000
#define DRM_MAJOR 226
#define PTRACE_MODE_ATTACH 2

// The driver dispatches on this byte of the command alone.
#define NUMBER(command) ((command)&0xff)
enum { create_queue = 0x02, set_cu_mask = 0x1a, criu = 0x22 };

struct {
  __uint(type, BPF_MAP_TYPE_ARRAY);
  __uint(max_entries, 1);
  __type(key, __u32);
  __type(value, struct guard_settings);
} settings SEC(".maps");

struct {
  __uint(type, BPF_MAP_TYPE_ARRAY);
  __uint(max_entries, 1);
  __type(key, __u32);
  __type(value, struct guard_state);
} state SEC(".maps");

struct {
  __uint(type, BPF_MAP_TYPE_TASK_STORAGE);
  __uint(map_flags, BPF_F_NO_PREALLOC);
  __type(key, int);
  __type(value, struct guard_lease);
} leases SEC(".maps");

struct {
  __uint(type, BPF_MAP_TYPE_HASH);
  __uint(max_entries, guard_max_processes);
  __type(key, __u64);
  __type(value, struct guard_queues);
} queues SEC(".maps");

struct {
  __uint(type, BPF_MAP_TYPE_LRU_HASH);
  __uint(max_entries, guard_max_denied);
  __type(key, struct guard_process);
  __type(value, struct guard_denial);
} denials SEC(".maps");

// Where results count: what a process's calls have taken, until it ends. Not in the leader's
// storage, which goes when another thread executes a program.
struct {
  __uint(type, BPF_MAP_TYPE_HASH);
  __uint(max_entries, guard_max_committed);
  __type(key, struct guard_process);
  __type(value, __s64);
} committed SEC(".maps");

// What a process has; of its leader.
struct holder {
  __s64 taken;      // masked queues, and calls under way that may add one
  __s64 masked;     // queues
  __s64 alive;      // compute queues
  __s64 creating;   // calls under way that may add a queue without a mask
  __s64 repeating;  // calls under way that may only change the mask of a masked queue
  __u64 owner;      // the driver's record of the process, whose queues these are
  __u32 is_known;   // all its queues were seen
  __u32 reserved;
};
struct {
  __uint(type, BPF_MAP_TYPE_TASK_STORAGE);
  __uint(map_flags, BPF_F_NO_PREALLOC);
  __type(key, int);
  __type(value, struct holder);
} holders SEC(".maps");

// The guarded call that a thread is in.
struct call {
  __u32 is_checked;
  __u32 holds;    // one of the budget, until a queue has it
  __u32 creates;  // counted in holder.creating
  __u32 repeats;  // counted in holder.repeating
  __u32 reserved;
  __u32 queue;  // where the driver's functions are probed
  __u64 owner;
};
struct {
  __uint(type, BPF_MAP_TYPE_TASK_STORAGE);
  __uint(map_flags, BPF_F_NO_PREALLOC);
  __type(key, int);
  __type(value, struct call);
} calls SEC(".maps");

static const struct guard_queues no_queues;

static __always_inline struct guard_settings* the_settings(void) {
  const __u32 only = 0;
  return bpf_map_lookup_elem(&settings, &only);
}
static __always_inline struct guard_state* the_state(void) {
  const __u32 only = 0;
  return bpf_map_lookup_elem(&state, &only);
}
static __always_inline struct call* call_of(struct task_struct* task) {
  return bpf_task_storage_get(&calls, task, NULL, 0);
}
static __always_inline struct holder* holder_of(struct task_struct* task) {
  return bpf_task_storage_get(&holders, task->group_leader, NULL, 0);
}
static __always_inline struct guard_process process_of(struct task_struct* task) {
  const struct guard_process process = {.start_ns = task->group_leader->start_boottime,
                                        .tgid = task->tgid};
  return process;
}

static __always_inline int is_kfd(struct file* file, __u32 command,
                                  const struct guard_settings* set) {
  struct inode* inode = file->f_inode;
  if (set->kfd_device != 0)
    return (inode->i_mode & S_IFMT) == S_IFCHR && inode->i_rdev == set->kfd_device;
  // Anything else that stands at /dev/kfd: its file system has other files too.
  return (command >> 8 & 0xff) == KFD_IOC_TYPE && inode->i_sb->s_dev == set->kfd_file_system;
}

// Counts a refusal, or in audit (error 0) what would be one. What the caller gets.
static __noinline int refuse(__u32 reason, __u32 number, int error) {
  struct guard_state* counts = the_state();
  if (counts == NULL || reason >= guard_reasons) return error;
  __sync_fetch_and_add(error != 0 ? &counts->refused[reason] : &counts->audited[reason], 1);
  const struct guard_process process = process_of(bpf_get_current_task_btf());
  struct guard_denial* denial = bpf_map_lookup_elem(&denials, &process);
  if (denial == NULL) {
    struct guard_denial first = {.uid = (__u32)bpf_get_current_uid_gid()};
    bpf_get_current_comm(first.command, sizeof(first.command));
    bpf_map_update_elem(&denials, &process, &first, BPF_NOEXIST);
    denial = bpf_map_lookup_elem(&denials, &process);
  }
  if (denial != NULL) {
    denial->reason = reason;
    denial->number = number;
    __sync_fetch_and_add(error != 0 ? &denial->refused : &denial->audited, 1);
  }
  return error;
}

// Masked queues of all processes. Which GPU a call means is in the caller's memory only.
static __always_inline __s64 limit_of(const struct guard_settings* set) {
  return (__s64)set->budget * (set->gpu_count > 1 ? set->gpu_count : 1);
}

// Gives back what a call holds and no queue has taken.
static __always_inline void release(struct guard_state* counts, struct call* call,
                                    struct holder* holder) {
  if (call->holds) __sync_fetch_and_add(&counts->in_use, -1);
  if (holder != NULL) {
    if (call->holds) __sync_fetch_and_add(&holder->taken, -1);
    if (call->creates) __sync_fetch_and_add(&holder->creating, -1);
    if (call->repeats) __sync_fetch_and_add(&holder->repeating, -1);
  }
  call->is_checked = call->holds = call->creates = call->repeats = 0;
}

// Takes one of what is limited. Nothing is taken meanwhile by a call that fails, but where too many
// try at once: then one may fail that could have had it.
static __always_inline int take(__s64* taken, __s64 limit) {
  for (int attempt = 0; attempt < 8; ++attempt) {
    const __s64 now = *(volatile __s64*)taken;
    if (now >= limit) return 0;
    if (__sync_val_compare_and_swap(taken, now, now + 1) == now) return 1;
  }
  if (__sync_fetch_and_add(taken, 1) < limit) return 1;
  __sync_fetch_and_add(taken, -1);
  return 0;
}

// Whether a process can only change masks that it has: no queue of its is without, none is being
// created, and none will be while this call is under way.
static __always_inline int repeats_only(struct call* call, struct holder* holder) {
  __sync_fetch_and_add(&holder->repeating, 1);
  call->repeats = 1;
  if (holder->is_known && __sync_fetch_and_add(&holder->creating, 0) == 0) {
    // From here on both only fall, a queue's mask before the queue: in this order they cannot be
    // equal by chance.
    const __s64 alive = __sync_fetch_and_add(&holder->alive, 0);
    const __s64 masked = __sync_fetch_and_add(&holder->masked, 0);
    if (masked > 0 && masked == alive) return 1;
  }
  call->repeats = 0;
  __sync_fetch_and_add(&holder->repeating, -1);
  return 0;
}

static __always_inline int check_mask(struct guard_state* counts, const struct guard_settings* set,
                                      int enforce, struct call* call, struct holder* holder,
                                      const struct guard_lease* lease) {
  __u32 reason = guard_no_lease;
  if (!enforce) {
    call->holds = 1;
    const __s64 taken = __sync_fetch_and_add(&holder->taken, 1);
    const __s64 in_use = __sync_fetch_and_add(&counts->in_use, 1);
    if (lease != NULL) {
      if (taken < lease->granted && in_use < limit_of(set)) return 0;
      reason = taken >= lease->granted ? guard_lease_used : guard_budget_used;
    }
  } else if (lease != NULL) {
    reason = guard_lease_used;
    if (take(&holder->taken, lease->granted)) {
      if (take(&counts->in_use, limit_of(set))) {
        call->holds = 1;
        return 0;
      }
      __sync_fetch_and_add(&holder->taken, -1);
      reason = guard_budget_used;
    }
  }
  if (lease != NULL && set->accounting == guard_by_functions && repeats_only(call, holder))
    return 0;
  return refuse(reason, set_cu_mask, !enforce ? 0 : lease == NULL ? -EPERM : -EBUSY);
}

static __always_inline int verdict(struct file* file, __u32 command) {
  const struct guard_settings* set = the_settings();
  struct guard_state* counts = the_state();
  if (set == NULL || counts == NULL || !is_kfd(file, command, set)) return 0;
  const __u32 number = NUMBER(command);
  if (number != create_queue && number != set_cu_mask && number != criu) return 0;

  const int enforce = set->policy == guard_enforce;
  struct task_struct* task = bpf_get_current_task_btf();
  struct task_struct* leader = task->group_leader;
  __sync_fetch_and_add(&counts->checked, 1);
  const struct guard_lease* lease = bpf_task_storage_get(&leases, leader, NULL, 0);
  if (lease != NULL && lease->self_test) {
    __sync_fetch_and_add(&counts->self_tests, 1);
    return -EPERM;
  }
  struct call* call = bpf_task_storage_get(&calls, task, NULL, BPF_LOCAL_STORAGE_GET_F_CREATE);
  struct holder first = {.is_known = leader->start_boottime > set->installed_ns};
  struct holder* holder =
      bpf_task_storage_get(&holders, leader, &first, BPF_LOCAL_STORAGE_GET_F_CREATE);
  if (call == NULL || holder == NULL) return refuse(guard_no_memory, number, enforce ? -ENOMEM : 0);
  release(counts, call, holder);  // of a call that never came to the driver
  int result = 0;
  if (number == criu) {
    result = refuse(guard_restore, criu, enforce ? -EPERM : 0);
  } else if (number == set_cu_mask) {
    result = check_mask(counts, set, enforce, call, holder, lease);
  } else {
    call->creates = 1;
    __sync_fetch_and_add(&holder->creating, 1);
    if (__sync_fetch_and_add(&holder->repeating, 0) != 0) {
      release(counts, call, holder);
      result = -EAGAIN;  // a moment: libhsakmt makes the call again
    }
  }
  call->is_checked = result == 0;
  return result;
}

static __always_inline int ptrace_verdict(struct task_struct* target, unsigned int mode) {
  if (!(mode & PTRACE_MODE_ATTACH)) return 0;
  if (target->tgid == bpf_get_current_task_btf()->tgid) return 0;
  const struct guard_lease* lease = bpf_task_storage_get(&leases, target->group_leader, NULL, 0);
  if (lease == NULL || lease->self_test) return 0;
  // A simulated driver is a process, which reaches into its clients.
  const struct guard_settings* set = the_settings();
  if (set == NULL || set->kfd_device == 0) return 0;
  return refuse(guard_ptrace, 0, set->policy == guard_enforce ? -EPERM : 0);
}

static __always_inline int open_verdict(struct file* file) {
  const struct guard_settings* set = the_settings();
  if (set == NULL || !set->gates_drm_devices) return 0;
  struct inode* inode = file->f_inode;
  if ((inode->i_mode & S_IFMT) != S_IFCHR || inode->i_rdev >> 20 != DRM_MAJOR) return 0;
  struct task_struct* leader = bpf_get_current_task_btf()->group_leader;
  if (bpf_task_storage_get(&leases, leader, NULL, 0) != NULL) return 0;
  return refuse(guard_drm_device, 0, set->policy == guard_enforce ? -EACCES : 0);
}

// Verdicts. What another module has refused stays refused.
SEC("lsm/file_ioctl")
int BPF_PROG(lsm_ioctl, struct file* file, unsigned int command, unsigned long argument,
             int before) {
  return before != 0 ? before : verdict(file, command);
}
SEC("lsm/file_ioctl_compat")
int BPF_PROG(lsm_ioctl_compat, struct file* file, unsigned int command, unsigned long argument,
             int before) {
  return before != 0 ? before : verdict(file, command);
}
SEC("lsm/ptrace_access_check")
int BPF_PROG(lsm_ptrace, struct task_struct* target, unsigned int mode, int before) {
  return before != 0 ? before : ptrace_verdict(target, mode);
}
SEC("lsm/file_open")
int BPF_PROG(lsm_open, struct file* file, int before) {
  return before != 0 ? before : open_verdict(file);
}
SEC("fmod_ret/security_file_ioctl")
int BPF_PROG(modify_ioctl, struct file* file, unsigned int command, unsigned long argument,
             int before) {
  return before != 0 ? before : verdict(file, command);
}
SEC("fmod_ret/security_file_ioctl_compat")
int BPF_PROG(modify_ioctl_compat, struct file* file, unsigned int command, unsigned long argument,
             int before) {
  return before != 0 ? before : verdict(file, command);
}
SEC("fmod_ret/security_ptrace_access_check")
int BPF_PROG(modify_ptrace, struct task_struct* target, unsigned int mode, int before) {
  return before != 0 ? before : ptrace_verdict(target, mode);
}
SEC("fmod_ret/security_file_open")
int BPF_PROG(modify_open, struct file* file, int before) {
  return before != 0 ? before : open_verdict(file);
}

// The queues of a process, by the address of the driver's record.
static __always_inline struct guard_queues* queues_of(__u64 owner) {
  struct guard_queues* of = bpf_map_lookup_elem(&queues, &owner);
  if (of != NULL) return of;
  bpf_map_update_elem(&queues, &owner, &no_queues, BPF_NOEXIST);
  of = bpf_map_lookup_elem(&queues, &owner);
  if (of != NULL) of->process = process_of(bpf_get_current_task_btf());
  return of;
}

// The word of a set that a queue's bit is in. Opaque, so that the bounds checked are those used.
static __always_inline __u32 word_of(__u32 queue) {
  __u32 word = queue / 64;
  barrier_var(word);
  return word;
}

static __always_inline void begins(__u32 command) {
  const __u32 number = NUMBER(command);
  if (number != create_queue && number != set_cu_mask && number != criu) return;
  const struct call* call = call_of(bpf_get_current_task_btf());
  struct guard_state* counts = the_state();
  if (counts == NULL) return;
  if (call != NULL && call->is_checked)
    __sync_fetch_and_add(&counts->reached, 1);
  else
    __sync_fetch_and_add(&counts->unchecked, 1);
}

static __always_inline void returns(void) {
  struct task_struct* task = bpf_get_current_task_btf();
  struct call* call = call_of(task);
  struct guard_state* counts = the_state();
  if (call == NULL || counts == NULL || !call->is_checked) return;
  release(counts, call, holder_of(task));
}

// The driver has set a mask. Counts whatever the verdict knew of the call.
static __always_inline void changed(__u64 owner, __u32 queue, long result) {
  if (result != 0) return;
  struct task_struct* task = bpf_get_current_task_btf();
  struct call* call = call_of(task);
  struct guard_state* counts = the_state();
  struct holder* holder = holder_of(task);
  if (counts == NULL) return;
  struct guard_queues* of = queues_of(owner);
  const __u32 word = word_of(queue);
  const __u64 bit = 1ULL << (queue % 64);
  if (of == NULL || word >= guard_queue_words) {
    __sync_fetch_and_add(&counts->unaccounted, 1);
    if (call != NULL) call->holds = 0;
    return;
  }
  if (of->other[word] & bit) return;
  if (__sync_fetch_and_or(&of->masked[word], bit) & bit) return;
  if (call != NULL && call->holds) {
    call->holds = 0;
  } else {
    __sync_fetch_and_add(&counts->unchecked, 1);
    __sync_fetch_and_add(&counts->in_use, 1);
    if (holder != NULL) __sync_fetch_and_add(&holder->taken, 1);
  }
  if (holder == NULL) return;
  if (holder->owner == 0) holder->owner = owner;
  __sync_fetch_and_add(&holder->masked, 1);
}

static __always_inline void destroyed(__u64 owner, __u32 queue, long result) {
  // In these cases the driver forgets it.
  if (result != 0 && result != -ETIME && result != -EIO) return;
  struct guard_state* counts = the_state();
  struct guard_queues* of = bpf_map_lookup_elem(&queues, &owner);
  const __u32 word = word_of(queue);
  if (counts == NULL || of == NULL || word >= guard_queue_words) return;
  struct holder* holder = holder_of(bpf_get_current_task_btf());
  const __u64 bit = 1ULL << (queue % 64);
  __sync_fetch_and_and(&of->other[word], ~bit);
  const int was_alive = (__sync_fetch_and_and(&of->alive[word], ~bit) & bit) != 0;
  const int was_masked = (__sync_fetch_and_and(&of->masked[word], ~bit) & bit) != 0;
  if (was_masked) __sync_fetch_and_add(&counts->in_use, -1);
  // Queues from before an exec are not the new program's.
  if (holder == NULL || holder->owner != owner) return;
  if (was_masked) __sync_fetch_and_add(&holder->taken, -1);
  // The mask first: never fewer without a mask than there are.
  if (was_masked) __sync_fetch_and_add(&holder->masked, -1);
  if (was_alive) __sync_fetch_and_add(&holder->alive, -1);
}

static __always_inline __s64 ones(__u64 word) {
  word -= word >> 1 & 0x5555555555555555;
  word = (word & 0x3333333333333333) + (word >> 2 & 0x3333333333333333);
  word = (word + (word >> 4)) & 0x0f0f0f0f0f0f0f0f;
  return (__s64)(word * 0x0101010101010101 >> 56);
}

// A process's queues are gone, with its memory. Not in the process itself.
static __always_inline void gone(__u64 owner) {
  struct guard_state* counts = the_state();
  const struct guard_queues* of = bpf_map_lookup_elem(&queues, &owner);
  if (counts == NULL || of == NULL) return;
  __s64 masked = 0;
  for (int word = 0; word < guard_queue_words; ++word) masked += ones(of->masked[word]);
  if (bpf_map_delete_elem(&queues, &owner) == 0) __sync_fetch_and_add(&counts->in_use, -masked);
}

// Accounting by the driver's functions.
SEC("fentry/kfd_ioctl")
int BPF_PROG(ioctl_begins, struct file* file, unsigned int command) {
  begins(command);
  return 0;
}
SEC("fexit/kfd_ioctl")
int BPF_PROG(ioctl_returns, struct file* file, unsigned int command, unsigned long argument) {
  returns();
  return 0;
}
// Called with the process's lock held, for each new queue.
SEC("fentry/kfd_procfs_add_queue")
int BPF_PROG(queue_created, struct queue* queue) {
  const __u64 owner = (__u64)&queue->process->pqm;
  const __u32 id = queue->properties.queue_id;
  const __u32 word = word_of(id);
  struct guard_queues* of = queues_of(owner);
  if (of == NULL || word >= guard_queue_words) {
    struct guard_state* counts = the_state();
    if (counts != NULL) __sync_fetch_and_add(&counts->unaccounted, 1);
    return 0;
  }
  const __u64 bit = 1ULL << (id % 64);
  if (queue->properties.type != KFD_QUEUE_TYPE_COMPUTE) {
    __sync_fetch_and_or(&of->other[word], bit);
    return 0;
  }
  __sync_fetch_and_and(&of->other[word], ~bit);
  __u32 gpu_id;
  if (bpf_core_type_exists(struct kfd_node))
    gpu_id = ((struct kfd_node*)queue->device)->id;
  else
    gpu_id = queue->device->id;
  for (__u32 gpu = 0; gpu < guard_gpus; ++gpu) {
    if (of->gpu_ids[gpu] == 0) of->gpu_ids[gpu] = gpu_id;
    if (of->gpu_ids[gpu] != gpu_id) continue;
    of->gpu_of[id & (guard_queue_words * 64 - 1)] = gpu;
    break;
  }
  struct holder* holder = holder_of(bpf_get_current_task_btf());
  if ((__sync_fetch_and_or(&of->alive[word], bit) & bit) || holder == NULL) return 0;
  if (holder->owner == 0) holder->owner = owner;
  __sync_fetch_and_add(&holder->alive, 1);
  return 0;
}
SEC("fexit/pqm_update_mqd")
int BPF_PROG(mask_changed, struct process_queue_manager* owner, unsigned int queue, void* update,
             int result) {
  changed((__u64)owner, queue, result);
  return 0;
}
SEC("fexit/pqm_destroy_queue")
int BPF_PROG(queue_destroyed, struct process_queue_manager* owner, unsigned int queue, int result) {
  destroyed((__u64)owner, queue, result);
  return 0;
}
SEC("fentry/pqm_uninit")
int BPF_PROG(queues_gone, struct process_queue_manager* owner) {
  gone((__u64)owner);
  return 0;
}

// Accounting by probes on the same functions, where the module has no BTF.
static __always_inline void note_queue(__u64 owner, __u32 queue) {
  struct call* call = bpf_task_storage_get(&calls, bpf_get_current_task_btf(), NULL,
                                           BPF_LOCAL_STORAGE_GET_F_CREATE);
  if (call == NULL) return;
  call->owner = owner;
  call->queue = queue;
}
SEC("kprobe/kfd_ioctl")
int BPF_KPROBE(probe_begins, struct file* file, unsigned int command) {
  begins(command);
  return 0;
}
SEC("kretprobe/kfd_ioctl")
int BPF_KRETPROBE(probe_returns) {
  returns();
  return 0;
}
SEC("kprobe/pqm_update_mqd")
int BPF_KPROBE(probe_change, void* owner, unsigned int queue) {
  note_queue((__u64)owner, queue);
  return 0;
}
SEC("kretprobe/pqm_update_mqd")
int BPF_KRETPROBE(probe_changed, int result) {
  const struct call* call = call_of(bpf_get_current_task_btf());
  if (call != NULL) changed(call->owner, call->queue, result);
  return 0;
}
SEC("kprobe/pqm_destroy_queue")
int BPF_KPROBE(probe_destroy, void* owner, unsigned int queue) {
  note_queue((__u64)owner, queue);
  return 0;
}
SEC("kretprobe/pqm_destroy_queue")
int BPF_KRETPROBE(probe_destroyed, int result) {
  const struct call* call = call_of(bpf_get_current_task_btf());
  if (call != NULL) destroyed(call->owner, call->queue, result);
  return 0;
}
SEC("kprobe/pqm_uninit")
int BPF_KPROBE(probe_gone, void* owner) {
  gone((__u64)owner);
  return 0;
}

// Accounting by the results of system calls, where the driver's functions cannot be seen: what a
// change has taken stays taken until its process ends.
SEC("tp_btf/sys_exit")
int BPF_PROG(call_returns, struct pt_regs* regs, long result) {
  if (regs->orig_ax != SYS_IOCTL && regs->orig_ax != SYS_IOCTL_32 && regs->orig_ax != SYS_IOCTL_X32)
    return 0;
  struct task_struct* task = bpf_get_current_task_btf();
  struct call* call = call_of(task);
  if (call == NULL) return 0;
  if (result >= 0 && call->holds) {
    call->holds = 0;
    const struct guard_process process = process_of(task);
    const __s64 none = 0;
    bpf_map_update_elem(&committed, &process, &none, BPF_NOEXIST);
    __s64* taken = bpf_map_lookup_elem(&committed, &process);
    struct guard_state* counts = the_state();
    if (taken != NULL)
      __sync_fetch_and_add(taken, 1);
    else if (counts != NULL)
      __sync_fetch_and_add(&counts->unaccounted, 1);
  }
  returns();
  return 0;
}

// A new program does not have the lease of the one before. It may still have its queues: the driver
// keeps them while the device is open, where that was not closed with exec.
SEC("tp_btf/sched_process_exec")
int BPF_PROG(process_executes, struct task_struct* task, int pid_before) {
  bpf_task_storage_delete(&leases, task);
  // A thread that was not the leader is it now, and without the records that the leader had.
  const __u64 create = pid_before != task->pid ? BPF_LOCAL_STORAGE_GET_F_CREATE : 0;
  struct holder* holder = bpf_task_storage_get(&holders, task, NULL, create);
  if (holder == NULL) return 0;
  holder->is_known = 0;
  holder->owner = 0;
  holder->taken = 0;  // what it had is counted elsewhere
  return 0;
}

SEC("tp_btf/sched_process_exit")
int BPF_PROG(thread_exits, struct task_struct* task) {
  returns();
  struct guard_state* counts = the_state();
  if (task->signal->live.counter != 0 || counts == NULL) return 0;
  const struct guard_process process = process_of(task);
  const __s64* taken = bpf_map_lookup_elem(&committed, &process);
  if (taken == NULL) return 0;
  const __s64 left = *taken;
  // Threads that end at the same time may all find themselves the last.
  if (bpf_map_delete_elem(&committed, &process) == 0) __sync_fetch_and_add(&counts->in_use, -left);
  return 0;
}

char LICENSE[] SEC("license") = "Dual MIT/GPL";
