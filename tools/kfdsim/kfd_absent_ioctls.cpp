// Ioctls of parts of the driver that are not simulated: they fail as the real driver does where it
// lacks the part, or is asked for something that is not there.
#include <fmt/format.h>
#include <linux/capability.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <fstream>
#include <string>

#include "tools/kfdsim/kfd_ioctls.h"

namespace eclip::kfdsim {
namespace {

/// What the driver says of a descriptor that it takes for a dma-buf; none of kfdsim's is one, and
/// the driver refuses those of others.
int refuse_dmabuf(pid_t pid, std::uint32_t fd) {
  const std::string file = fmt::format("/proc/{}/fdinfo/{}", pid, fd);
  return ::access(file.c_str(), F_OK) == 0 ? -EINVAL : -EBADF;
}

/// Whether the process may checkpoint: CAP_CHECKPOINT_RESTORE or CAP_SYS_ADMIN.
bool may_checkpoint(pid_t pid) {
  constexpr unsigned checkpoint_restore = 40;  // newer than some <linux/capability.h>
  constexpr std::uint64_t either = 1ULL << checkpoint_restore | 1ULL << CAP_SYS_ADMIN;
  const std::string key = "CapEff:";
  std::ifstream status(fmt::format("/proc/{}/status", pid));
  for (std::string line; std::getline(status, line);) {
    if (!line.starts_with(key)) continue;
    return (std::strtoull(line.c_str() + key.size(), nullptr, 16) & either) != 0;
  }
  return false;
}

}  // namespace

int refuse_debugger(KfdCall&, kfd_ioctl_dbg_register_args&) {
  return -EPERM;
}

int refuse_svm(KfdCall&, kfd_ioctl_set_xnack_mode_args&) {
  return -EPERM;
}

int get_dmabuf_info(KfdCall& call, kfd_ioctl_get_dmabuf_info_args& arguments) {
  if (arguments.metadata_ptr != 0 && arguments.metadata_size > max_kernel_array) return -ENOMEM;
  return refuse_dmabuf(call.client.pid(), arguments.dmabuf_fd);
}

int import_dmabuf(KfdCall& call, kfd_ioctl_import_dmabuf_args& arguments) {
  return refuse_dmabuf(call.client.pid(), arguments.dmabuf_fd);
}

int watch_smi_events(KfdCall&, kfd_ioctl_smi_events_args& arguments) {
  // The driver returns a new descriptor in the calling process; a FUSE server cannot make one
  // there.
  return arguments.gpuid == kfd_gpu_id ? -ENOMEM : -EINVAL;
}

int checkpoint(KfdCall& call, kfd_ioctl_criu_args& arguments) {
  if (!may_checkpoint(call.client.pid())) return -EACCES;
  switch (arguments.op) {
    case KFD_CRIU_OP_PROCESS_INFO:
      return -ENODEV;
    case KFD_CRIU_OP_RESUME:
      return -ESRCH;
    default:
      return -EINVAL;  // nothing has been paused or checkpointed; or there is no such operation
  }
}

}  // namespace eclip::kfdsim
