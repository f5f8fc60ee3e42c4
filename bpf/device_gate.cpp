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

#include "bpf/maps.h"
#include "bpf/pins.h"
#include "ipc/unique_fd.h"

namespace eclip::bpf {
namespace {

namespace fs = std::filesystem;

struct DestroyGate {
  void operator()(gate_bpf* skeleton) const { gate_bpf__destroy(skeleton); }
};

}  // namespace

Result<void> DeviceGate::install(const Options& options) {
  struct stat kfd {};
  if (::stat(options.kfd.c_str(), &kfd) != 0) return fail_errno(errno, "examine " + options.kfd);
  if (!S_ISCHR(kfd.st_mode))
    return fail(Errc::invalid_argument,
                options.kfd + " is no character device: opening it cannot be gated");
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
  state.gates_render_nodes = options.gate_render_nodes ? 1 : 0;
  const std::string name = options.cgroup.string();
  std::copy_n(name.begin(), std::min(name.size(), sizeof state.cgroup - 1), state.cgroup);

  const auto locked = make_pin_directory(options.directory);
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
  if (auto removed = remove_pins(options.directory); !removed) return removed;
  const std::string map = options.directory / "gate";
  const std::string link = options.directory / "link_refuse_device";
  int error = bpf_map__pin(skeleton->maps.gate, map.c_str());
  if (error == 0) error = bpf_link__pin(skeleton->links.refuse_device, link.c_str());
  if (error == 0) return {};
  [[maybe_unused]] const auto removed = remove_pins(options.directory);
  return fail_errno(-error, "pin the gate in " + options.directory.string());
}

Result<bool> DeviceGate::remove(const fs::path& directory) {
  return remove_pin_directory(directory);
}

Result<gate_state> DeviceGate::state(const fs::path& directory) {
  const UniqueFd map(::bpf_obj_get((directory / "gate").c_str()));
  if (!map && errno == ENOENT) return fail(Errc::not_found, "there is no device gate");
  if (!map) return fail_errno(errno, "open the device gate");
  return only_value<gate_state>(map.get(), "read the device gate");
}

}  // namespace eclip::bpf
