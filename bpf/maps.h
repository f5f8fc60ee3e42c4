// How user space reads what the BPF programs have counted.
#pragma once

#include <bpf/bpf.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/types.h>

#include <cerrno>
#include <cstdint>
#include <iterator>
#include <map>
#include <string>
#include <vector>

#include "ipc/result.h"

namespace eclip::bpf {

/// A dev_t as the kernel keeps it.
inline std::uint32_t kernel_device(dev_t device) {
  return major(device) << 20 | minor(device);
}

/// How programs recognise the KFD's file: a character device by its number, anything else that
/// stands at that path by the file system that it is on. The other number is 0.
struct KfdIdentity {
  std::uint32_t device = 0;
  std::uint32_t file_system = 0;
};
/// Errors: the system's.
inline Result<KfdIdentity> identify_kfd(const std::string& path) {
  struct stat status {};
  if (::stat(path.c_str(), &status) != 0) return fail_errno(errno, "examine " + path);
  if (S_ISCHR(status.st_mode)) return KfdIdentity{.device = kernel_device(status.st_rdev)};
  return KfdIdentity{.file_system = kernel_device(status.st_dev)};
}

/// Calls `use` with each key and value of a hash map of at most `most` entries. What comes or goes
/// meanwhile may be left out. Errors: the system's.
template <class Key, class Value, class Use>
Result<void> for_each(int map, std::uint32_t most, Use use) {
  std::vector<Key> keys(most);
  std::vector<Value> values(most);
  // Bucket by bucket, which ends however fast entries come and go.
  __u32 position = 0;
  for (bool first = true, last = false; !last; first = false) {
    __u32 count = most;
    const int error = ::bpf_map_lookup_batch(map, first ? nullptr : &position, &position,
                                             keys.data(), values.data(), &count, nullptr);
    last = error != 0;
    if (error != 0 && errno != ENOENT)
      return fail_errno(errno, "read what the BPF programs have counted");
    for (__u32 i = 0; i < count; ++i) use(keys[i], values[i]);
  }
  return {};
}

/// The value of an array map of one. Errors: the system's, while it was tried to `purpose`.
template <class Value>
Result<Value> only_value(int map, const char* purpose) {
  const __u32 only = 0;
  Value value{};
  if (::bpf_map_lookup_elem(map, &only, &value) != 0) return fail_errno(errno, purpose);
  return value;
}
template <class Value>
Result<void> set_only_value(int map, const Value& value, const char* purpose) {
  const __u32 only = 0;
  if (::bpf_map_update_elem(map, &only, &value, BPF_ANY) != 0) return fail_errno(errno, purpose);
  return {};
}

/// The compute queues that a process has on a GPU.
struct KfdQueues {
  pid_t pid;
  std::uint32_t gpu_id;  ///< the driver's
  std::uint32_t alive;
  std::uint32_t masked;  ///< of these have had a CU mask set
};

/// Adds what a process has, by GPU. Sets are arrays of words, `of.gpu_of` has an entry for each
/// bit.
template <class Queues>
void append_queues(const Queues& of, pid_t pid, std::vector<KfdQueues>& queues) {
  std::map<std::uint32_t, KfdQueues> by_gpu;
  for (std::size_t queue = 0; queue < std::size(of.gpu_of); ++queue) {
    const auto is_in = [queue](const auto& words) {
      return (words[queue / 64] >> queue % 64 & 1) != 0;
    };
    // Where creation is not seen, a masked queue is alive all the same.
    if (!is_in(of.alive) && !is_in(of.masked)) continue;
    const std::uint32_t gpu_id = of.gpu_ids[of.gpu_of[queue] % std::size(of.gpu_ids)];
    KfdQueues& on_gpu = by_gpu[gpu_id];
    on_gpu.pid = pid;
    on_gpu.gpu_id = gpu_id;
    ++on_gpu.alive;
    if (is_in(of.masked)) ++on_gpu.masked;
  }
  for (const auto& [gpu_id, on_gpu] : by_gpu) queues.push_back(on_gpu);
}

}  // namespace eclip::bpf
