// SPDX-License-Identifier: GPL-2.0-only OR MIT
// Keeps the processes of one cgroup from opening the KFD's device: all that a kernel lets a program
// refuse that permits neither LSM nor fmod_ret programs. Files that are open stay so.
#include <linux/bpf.h>
//
#include <bpf/bpf_helpers.h>

#include "guard.h"

#define DRM_MAJOR 226
#define OPENS ((BPF_DEVCG_ACC_READ | BPF_DEVCG_ACC_WRITE) << 16)

struct {
  __uint(type, BPF_MAP_TYPE_ARRAY);
  __uint(max_entries, 1);
  __type(key, __u32);
  __type(value, struct gate_state);
} gate SEC(".maps");

SEC("cgroup/dev")
int refuse_device(struct bpf_cgroup_dev_ctx* access) {
  const __u32 only = 0;
  struct gate_state* state = bpf_map_lookup_elem(&gate, &only);
  if (state == NULL || (access->access_type & 0xffff) != BPF_DEVCG_DEV_CHAR ||
      !(access->access_type & OPENS))
    return 1;
  const int is_kfd = access->major == state->major && access->minor == state->minor;
  if (!is_kfd && !(access->major == DRM_MAJOR && state->gates_drm_devices)) return 1;
  __sync_fetch_and_add(&state->refused, 1);
  return 0;
}

char LICENSE[] SEC("license") = "Dual MIT/GPL";
