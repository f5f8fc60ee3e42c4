#include "daemon/kfd_ioctl_probe.h"

#include <bpf/bpf.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <kfd_ioctl.skel.h>
#include <cerrno>
#include <cstring>

#include "bpf/kfd_ioctl.h"

namespace eclip::daemon {
namespace {

/// A dev_t as the kernel keeps it.
std::uint32_t kernel_device(dev_t device) {
  return major(device) << 20 | minor(device);
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
  if (error == 0) error = kfd_ioctl_bpf__attach(probe.skeleton_.get());
  if (error != 0)
    return fail(Errc::unsupported,
                "KFD ioctls are not counted: this kernel refuses the probe (" +
                    std::generic_category().message(-error) +
                    "); it needs BTF, tp_btf programs (Linux 5.5) and CAP_BPF with CAP_PERFMON");
  return probe;
}

Result<std::uint64_t> KfdIoctlProbe::total() const {
  std::uint64_t sum = skeleton_->bss->uncounted;
  const int map = bpf_map__fd(skeleton_->maps.counts);
  kfd_ioctl_key key{};
  const kfd_ioctl_key* previous = nullptr;
  while (bpf_map_get_next_key(map, previous, &key) == 0) {
    std::uint64_t count = 0;
    if (bpf_map_lookup_elem(map, &key, &count) != 0)
      return fail_errno(errno, "read the ioctl probe's counts");
    sum += count;
    previous = &key;
  }
  return sum;
}

}  // namespace eclip::daemon
