// The private view of /dev and /sys in which COMMAND finds the simulated GPU.
#pragma once

#include <filesystem>
#include <span>
#include <string>

#include "ipc/result.h"
#include "tools/kfdsim/topology_files.h"

namespace eclip::kfdsim {

/// Where kfdsim's own things are inside the namespace. It vanishes with the namespace.
inline constexpr const char* private_directory = "/dev/kfdsim";
/// Mount point of the FUSE file system.
inline constexpr const char* fuse_directory = "/dev/kfdsim/fs";
/// Programs that come first in COMMAND's PATH.
inline constexpr const char* program_directory = "/dev/kfdsim/bin";

/// Moves the caller, which must have one thread, into a mount namespace of its own from which
/// nothing propagates; without CAP_SYS_ADMIN, into a user namespace too. Errc::access_denied when
/// the caller may not.
Result<void> enter_private_namespace();

/// Puts a tmpfs over /dev that has all that was there but for the contents of /dev/shm, and in
/// place of any real GPU the symbolic links /dev/kfd and /dev/dri/renderD128 into fuse_directory,
/// which is empty still.
Result<void> replace_dev();

/// What the simulated GPU adds to /sys.
struct SysFiles {
  std::span<const StaticSysFile> kfd;
  std::span<const StaticSysFile> pci_device;
};
/// Puts a tmpfs over /sys/devices/virtual, /sys/class and /sys/module, with what was there, and
/// adds the KFD, the GPU's PCI device with its two DRM nodes, the driver's module, and, where the
/// kernel tells of none, a cache for each CPU.
Result<void> replace_sys(const SysFiles& files);

/// Lets COMMAND see `content` in place of a file that exists; does nothing when it does not.
Result<void> replace_file(const std::filesystem::path& file, const std::string& content);

}  // namespace eclip::kfdsim
