#include "bpf/kfd_ioctl_probe.h"

#include <kfd_ioctl.skel.h>
#include <algorithm>
#include <cstring>

#include "bpf/kfd_ioctl.h"
#include "bpf/pins.h"

namespace eclip::bpf {
void KfdIoctlProbe::Destroy::operator()(kfd_ioctl_bpf* skeleton) const {
  kfd_ioctl_bpf__destroy(skeleton);
}

Result<KfdIoctlProbe> KfdIoctlProbe::attach() {
  const auto kfd = identify_kfd("/dev/kfd");
  if (!kfd) return tl::unexpected(kfd.error());
  quiet_libbpf();
  // A simulated device has none of the driver's functions below it.
  if (kfd->device != 0)
    if (auto probe = attach(*kfd, Place::driver)) return probe;
  return attach(*kfd, Place::system_calls);
}

Result<KfdIoctlProbe> KfdIoctlProbe::attach(const KfdIdentity& kfd, Place place) {
  KfdIoctlProbe probe(kfd_ioctl_bpf__open(), place);
  if (!probe.skeleton_) return fail_errno(errno, "open the ioctl probe");
  probe.skeleton_->rodata->kfd_device = kfd.device;
  probe.skeleton_->rodata->kfd_file_system = kfd.file_system;
  const auto& programs = probe.skeleton_->progs;
  for (bpf_program* program : {programs.function_begins, programs.function_ends})
    bpf_program__set_autoload(program, place == Place::driver);
  for (bpf_program* program : {programs.call_begins, programs.call_ends})
    bpf_program__set_autoload(program, place == Place::system_calls);
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
      bpf_map__fd(skeleton_->maps.costs), kfd_ioctl_max_costs,
      [&](const kfd_ioctl_cost_key& key, const kfd_ioctl_cost& cost) {
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
      bpf_map__fd(skeleton_->maps.queues), kfd_ioctl_max_processes,
      [&](const kfd_ioctl_process& key, const kfd_ioctl_queues& of) {
        append_queues(of, static_cast<pid_t>(key.tgid), queues);
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

}  // namespace eclip::bpf
