#include "daemon/kfd_ioctl_probe.h"

#include <bpf/bpf.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <kfd_ioctl.skel.h>
#include <algorithm>
#include <cerrno>
#include <cstring>
#include <iterator>
#include <map>

#include "bpf/kfd_ioctl.h"

namespace eclip::daemon {
namespace {

/// A dev_t as the kernel keeps it.
std::uint32_t kernel_device(dev_t device) {
  return major(device) << 20 | minor(device);
}

/// Calls `use` with each key and value of a map. What comes or goes meanwhile may be left out.
template <class Key, class Value, class Use>
Result<void> for_each(const bpf_map* map, Use use) {
  const __u32 most = bpf_map__max_entries(map);
  std::vector<Key> keys(most);
  std::vector<Value> values(most);
  // Bucket by bucket, which ends however fast entries come and go.
  __u32 position = 0;
  for (bool first = true, last = false; !last; first = false) {
    __u32 count = most;
    const int error = bpf_map_lookup_batch(bpf_map__fd(map), first ? nullptr : &position, &position,
                                           keys.data(), values.data(), &count, nullptr);
    last = error != 0;
    if (error != 0 && errno != ENOENT)
      return fail_errno(errno, "read what the ioctl probe has counted");
    for (__u32 i = 0; i < count; ++i) use(keys[i], values[i]);
  }
  return {};
}

int silent(libbpf_print_level, const char*, va_list) {
  return 0;
}

}  // namespace

void KfdIoctlProbe::Destroy::operator()(kfd_ioctl_bpf* skeleton) const {
  kfd_ioctl_bpf__destroy(skeleton);
}

Result<KfdIoctlProbe> KfdIoctlProbe::attach() {
  struct stat status {};
  if (::stat("/dev/kfd", &status) != 0) return fail_errno(errno, "examine /dev/kfd");
  libbpf_set_print(silent);  // what goes wrong is in the returned error
  KfdIoctlProbe probe(kfd_ioctl_bpf__open());
  if (!probe.skeleton_) return fail_errno(errno, "open the ioctl probe");
  if (S_ISCHR(status.st_mode))
    probe.skeleton_->rodata->kfd_device = kernel_device(status.st_rdev);
  else
    probe.skeleton_->rodata->kfd_file_system = kernel_device(status.st_dev);
  int error = kfd_ioctl_bpf__load(probe.skeleton_.get());
  for (__u32 number = 0; error == 0 && number < kfd_ioctl_commands; ++number) {
    const kfd_ioctl_cost_key nobody{.process = {}, .number = number, .reserved = 0};
    const kfd_ioctl_cost none{};
    error = bpf_map__update_elem(probe.skeleton_->maps.costs, &nobody, sizeof nobody, &none,
                                 sizeof none, BPF_NOEXIST);
  }
  if (error == 0) error = kfd_ioctl_bpf__attach(probe.skeleton_.get());
  if (error != 0)
    return fail(Errc::unsupported, "KFD ioctls are not measured: this kernel refuses the probe (" +
                                       std::generic_category().message(-error) +
                                       "); it needs BTF, task storage for tracing programs (Linux "
                                       "5.12) and CAP_BPF with CAP_PERFMON");
  return probe;
}

Result<std::vector<KfdIoctlCost>> KfdIoctlProbe::costs() const {
  std::vector<KfdIoctlCost> costs;
  auto read = for_each<kfd_ioctl_cost_key, kfd_ioctl_cost>(
      skeleton_->maps.costs, [&](const kfd_ioctl_cost_key& key, const kfd_ioctl_cost& cost) {
        if (cost.count == 0) return;
        KfdIoctlCost& each =
            costs.emplace_back(KfdIoctlCost{.pid = static_cast<pid_t>(key.process.tgid),
                                            .number = key.number,
                                            .count = cost.count,
                                            .errors = cost.errors,
                                            .total_ns = cost.total_ns,
                                            .errors_ns = cost.errors_ns,
                                            .max_ns = cost.max_ns,
                                            .buckets = {}});
        static_assert(std::tuple_size_v<decltype(each.buckets)> == kfd_ioctl_buckets);
        std::copy_n(cost.buckets, kfd_ioctl_buckets, each.buckets.begin());
      });
  if (!read) return tl::unexpected(read.error());
  return costs;
}

Result<std::vector<KfdQueues>> KfdIoctlProbe::queues() const {
  std::vector<KfdQueues> queues;
  auto read = for_each<kfd_ioctl_process, kfd_ioctl_queues>(
      skeleton_->maps.queues, [&](const kfd_ioctl_process& key, const kfd_ioctl_queues& of) {
        std::map<std::uint32_t, KfdQueues> by_gpu;
        for (std::size_t queue = 0; queue < std::size(of.gpu_of); ++queue) {
          const auto is_in = [queue](const auto& words) {
            return (words[queue / 64] >> queue % 64 & 1) != 0;
          };
          if (!is_in(of.alive)) continue;
          const std::uint32_t gpu_id = of.gpu_ids[of.gpu_of[queue] % kfd_ioctl_gpus];
          KfdQueues& on_gpu = by_gpu[gpu_id];
          on_gpu.pid = static_cast<pid_t>(key.tgid);
          on_gpu.gpu_id = gpu_id;
          ++on_gpu.alive;
          if (is_in(of.masked)) ++on_gpu.masked;
        }
        for (const auto& [gpu_id, on_gpu] : by_gpu) queues.push_back(on_gpu);
      });
  if (!read) return tl::unexpected(read.error());
  return queues;
}

std::uint64_t KfdIoctlProbe::unseen() const {
  return __atomic_load_n(&skeleton_->bss->unseen, __ATOMIC_RELAXED);
}

Result<std::uint64_t> KfdIoctlProbe::total() const {
  const auto all = costs();
  if (!all) return tl::unexpected(all.error());
  std::uint64_t sum = 0;
  for (const auto& cost : *all) sum += cost.count;
  return sum;
}

}  // namespace eclip::daemon
