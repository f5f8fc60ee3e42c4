/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/* What guard.bpf.c and user space share: the maps that stay pinned while eclipd comes and goes.
 * Plain C, fixed width. A change of any of these raises guard_layout.
 */
#ifndef ECLIP_BPF_GUARD_H
#define ECLIP_BPF_GUARD_H

#include <linux/types.h>

enum {
  guard_layout = 1,
  guard_max_processes = 1024, /* that have queues: twice what the driver permits */
  guard_max_committed = 4096, /* processes whose calls count by their results */
  guard_max_denied = 1024,    /* processes that were refused something, the latest */
  guard_queue_words = 16,     /* 64 queues each: the driver gives a process 1024 at most */
  guard_gpus = 16,            /* of a process; queues on further ones have none */
};

enum guard_policy { guard_audit = 0, guard_enforce = 1 };

/* How the guard learns what the driver has done with a call that it let pass. */
enum guard_accounting {
  guard_by_functions = 0, /* fentry and fexit of the driver's functions: each queue is known */
  guard_by_probes = 1,    /* kprobes on them; which queues are not masked is not known */
  guard_by_returns = 2,   /* the system call's result: each change counts until its process ends */
};

/* Why something is refused, or would be. */
enum guard_reason {
  guard_no_lease = 0,
  guard_lease_used = 1,  /* as many masked queues as the lease grants */
  guard_budget_used = 2, /* as many as the GPUs' budget */
  guard_restore = 3,     /* CRIU restores queues with their masks */
  guard_ptrace = 4,      /* of a process with a lease */
  guard_drm_device = 5,  /* opened without a lease */
  guard_no_memory = 6,   /* for the guard's own records */
  guard_reasons = 7,
};

/* The one value of the map `settings`: user space writes, the programs read. */
struct guard_settings {
  __u32 layout;
  __u32 policy;            /* guard_policy */
  __u32 configured_policy; /* of the configuration that installed it */
  __u32 budget;            /* masked queues of each GPU that an eclipd has */
  __u32 gpu_count;
  __u32 gpus[guard_gpus]; /* their ids, the driver's */
  __u32 kfd_device;       /* dev_t as the kernel keeps it; 0: known by the next */
  __u32 kfd_file_system;
  __u32 accounting; /* guard_accounting */
  __u32 verdict;    /* user space's: by LSM or fmod_ret programs */
  __u32 gates_drm_devices;
  __u32 complete;     /* 1: all links are pinned */
  __u64 installed_ns; /* CLOCK_BOOTTIME when all was attached; until then the end of time */
};

/* The one value of the map `state`: the programs write. */
struct guard_state {
  __s64 in_use;      /* masked queues of all processes, and calls under way that may add one */
  __u64 checked;     /* calls that the guard has looked at */
  __u64 self_tests;  /* of these refused because they were meant to be */
  __u64 reached;     /* of these the driver's function has been called for */
  __u64 unchecked;   /* calls that reached the driver past the guard: never */
  __u64 unaccounted; /* queues that there was no room to note; they stay in use */
  __u64 refused[guard_reasons];
  __u64 audited[guard_reasons]; /* would have been refused */
};

/* Value of the map `leases`, task storage of the thread group's leader: what it may mask. User
 * space writes it through a pidfd; it goes with the process, and with exec. */
struct guard_lease {
  __u32 granted; /* masked queues at a time */
  __u32 self_test;
};

struct guard_process {
  __u64 start_ns; /* CLOCK_BOOTTIME of its start: the pid alone may be used again */
  __u32 tgid;
  __u32 reserved;
};

/* Value of the map `queues`, whose key is the driver's own record of the process: bit q % 64 of
 * word q / 64 is queue q. */
struct guard_queues {
  struct guard_process process;
  __u64 alive[guard_queue_words]; /* compute queues */
  __u64 other[guard_queue_words]; /* queues that have no CUs */
  __u64 masked[guard_queue_words];
  __u32 gpu_ids[guard_gpus];           /* of the driver; 0: none yet */
  __u8 gpu_of[guard_queue_words * 64]; /* index of gpu_ids */
};

/* Value of the map `denials`, whose key is a guard_process. */
struct guard_denial {
  __u64 refused;
  __u64 audited;
  __u32 reason; /* the latest's; a guard_reason */
  __u32 number; /* _IOC_NR of its command; 0: no ioctl */
  __u32 uid;
  __u32 reserved;
  char command[16];
};

/* The one value of the map `gate` of gate.bpf.c. */
struct gate_state {
  __u64 refused; /* opens */
  __u32 major;   /* of the KFD's device */
  __u32 minor;
  __u32 gates_drm_devices; /* user space writes these */
  __u32 reserved;
  char cgroup[256];
};

#endif
