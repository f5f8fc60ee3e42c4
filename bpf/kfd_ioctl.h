/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/* What kfd_ioctl.bpf.c and user space share. Plain C, fixed width. */
#ifndef ECLIP_BPF_KFD_IOCTL_H
#define ECLIP_BPF_KFD_IOCTL_H

#include <linux/types.h>

/* Key of the map `counts`; its value is a __u64. */
struct kfd_ioctl_key {
  __u32 tgid;
  __u32 number; /* _IOC_NR of the command, by which the KFD dispatches */
};

enum {
  kfd_ioctl_max_keys = 4096, /* processes x commands; more are counted in `uncounted` */
};

#endif
