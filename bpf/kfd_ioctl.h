/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/* What kfd_ioctl.bpf.c and user space share. Plain C, fixed width. */
#ifndef ECLIP_BPF_KFD_IOCTL_H
#define ECLIP_BPF_KFD_IOCTL_H

#include <linux/types.h>

enum {
  kfd_ioctl_max_costs = 4096,     /* processes x commands; more go to the entry of nobody */
  kfd_ioctl_max_processes = 1024, /* that have queues */
  kfd_ioctl_commands = 0x40,      /* numbers from 0x3f on, which no driver has, count as 0x3f */
  kfd_ioctl_buckets = 32,
  kfd_ioctl_gpus = 16,        /* of a process; queues on further ones are not seen */
  kfd_ioctl_queue_words = 16, /* 64 queues each: the driver gives a process 1024 at most */
};

/* A process: its pid alone may be used again. */
struct kfd_ioctl_process {
  __u64 start_ns; /* CLOCK_BOOTTIME of its start */
  __u32 tgid;     /* 0, with start_ns 0: nobody; all that have ended, or were too many */
  __u32 reserved;
};

/* Key of the map `costs`. */
struct kfd_ioctl_cost_key {
  struct kfd_ioctl_process process;
  __u32 number; /* _IOC_NR of the command, by which the KFD dispatches */
  __u32 reserved;
};

struct kfd_ioctl_cost {
  __u64 count;
  __u64 errors; /* of these returned a negative error number */
  __u64 total_ns;
  __u64 errors_ns; /* of these in calls that returned one */
  __u64 max_ns;
  __u64
      buckets[kfd_ioctl_buckets]; /* [b]: took 2^b to 2^(b+1) - 1 ns; [0] also 0, [31] also more */
};

/* Compute queues. Value of the map `queues`, whose key is a kfd_ioctl_process: bit q % 64 of word q
 * / 64 is queue q. */
struct kfd_ioctl_queues {
  __u64 alive[kfd_ioctl_queue_words];
  __u64 masked[kfd_ioctl_queue_words];     /* has had a CU mask set */
  __u32 gpu_ids[kfd_ioctl_gpus];           /* of the driver; 0: none yet */
  __u8 gpu_of[kfd_ioctl_queue_words * 64]; /* index of gpu_ids */
};

#endif
