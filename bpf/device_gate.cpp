#include "bpf/device_gate.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>

#include <gate.skel.h>
#include <algorithm>
#include <cerrno>
#include <memory>
#include <string>

#include "bpf/maps.h"
#include "bpf/pins.h"
#include "ipc/unique_fd.h"

namespace eclip::bpf {
namespace {

namespace fs = std::filesystem;

constexpr const char* kfd_device = "/dev/kfd";

struct DestroyGate {
  void operator()(gate_bpf* skeleton) const { gate_bpf__destroy(skeleton); }
};

}  // namespace

Result<void> DeviceGate::install(const Options& options) {
  struct stat kfd {};
  if (::stat(kfd_device, &kfd) != 0) return fail_errno(errno, std::string("examine ") + kfd_device);
  if (!S_ISCHR(kfd.st_mode))
    return fail(Errc::invalid_argument,
                std::string(kfd_device) + " is no character device: opening it cannot be gated");
  const UniqueFd cgroup(::open(options.cgroup.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!cgroup) return fail_errno(errno, "open the cgroup " + options.cgroup.string());
  struct statfs status {};
  if (::fstatfs(cgroup.get(), &status) != 0 || status.f_type != CGROUP2_SUPER_MAGIC)
    return fail(Errc::invalid_argument, options.cgroup.string() +
                                            " is no cgroup of version 2, as there are below "
                                            "/sys/fs/cgroup");
  gate_state state{};
  state.major = major(kfd.st_rdev);
  state.minor = minor(kfd.st_rdev);
  state.gates_drm_devices = options.gate_drm_devices ? 1 : 0;
  const std::string name = options.cgroup.string();
  std::copy_n(name.begin(), std::min(name.size(), sizeof state.cgroup - 1), state.cgroup);

  const auto locked = make_pin_directory(fs::path(directory));
  if (!locked) return tl::unexpected(locked.error());
  quiet_libbpf();
  const std::unique_ptr<gate_bpf, DestroyGate> skeleton(gate_bpf__open_and_load());
  if (!skeleton)
    return fail(Errc::unsupported, "the kernel refuses a program that gates devices (" +
                                       std::generic_category().message(errno) +
                                       "); it needs CAP_BPF and CAP_NET_ADMIN");
  if (auto set = set_only_value(bpf_map__fd(skeleton->maps.gate), state, "set up the gate"); !set)
    return set;
  skeleton->links.refuse_device =
      bpf_program__attach_cgroup(skeleton->progs.refuse_device, cgroup.get());
  if (skeleton->links.refuse_device == nullptr)
    return fail_errno(errno, "attach the gate to " + options.cgroup.string());
  if (auto removed = remove_pins(fs::path(directory)); !removed) return removed;
  const std::string map = fs::path(directory) / "gate";
  const std::string link = fs::path(directory) / "link_refuse_device";
  int error = bpf_map__pin(skeleton->maps.gate, map.c_str());
  if (error == 0) error = bpf_link__pin(skeleton->links.refuse_device, link.c_str());
  if (error == 0) return {};
  [[maybe_unused]] const auto removed = remove_pins(fs::path(directory));
  return fail_errno(-error, "pin the gate in " + std::string(directory));
}

Result<bool> DeviceGate::remove() {
  return remove_pin_directory(directory);
}

Result<gate_state> DeviceGate::state() {
  const UniqueFd map(::bpf_obj_get((fs::path(directory) / "gate").c_str()));
  if (!map && errno == ENOENT) return fail(Errc::not_found, "there is no device gate");
  if (!map) return fail_errno(errno, "open the device gate");
  return only_value<gate_state>(map.get(), "read the device gate");
}

}  // namespace eclip::bpf
