#include "tools/kfdsim/mount_namespace.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <fstream>
#include <string_view>
#include <system_error>
#include <utility>

#include "ipc/unique_fd.h"
#include "tools/kfdsim/process_files.h"
#include "tools/kfdsim/user_namespace.h"

namespace eclip::kfdsim {
namespace {

namespace fs = std::filesystem;

std::string policy_hint() {
  const std::string remedy = user_namespace_remedy();
  if (::getuid() != 0 && !remedy.empty()) {
    return fmt::format("run kfdsim as root (CAP_SYS_ADMIN), or: {}", remedy);
  }
  return "check that no container or security policy forbids mounts";
}

Result<void> write_file(const fs::path& path, std::string_view content) {
  std::error_code error;
  fs::create_directories(path.parent_path(), error);
  std::ofstream stream(path);
  stream << content;
  stream.close();
  if (stream.good()) return {};
  return fail_errno(EIO, fmt::format("cannot write {} in the private namespace", path.string()));
}

Result<void> link_file(const fs::path& target, const fs::path& at) {
  std::error_code error;
  fs::create_directories(at.parent_path(), error);
  fs::create_symlink(target, at, error);
  if (!error) return {};
  return fail_errno(error.value(), fmt::format("cannot make the symbolic link {}", at.string()));
}

Result<void> bind(const fs::path& from, const fs::path& to) {
  if (::mount(from.c_str(), to.c_str(), nullptr, MS_BIND | MS_REC, nullptr) == 0) return {};
  return fail_errno(errno, fmt::format("cannot keep {} in the private namespace", to.string()));
}

/// Makes `to` what `from` is: directories and odd files are the same ones, devices are new nodes.
Result<void> carry_over(const fs::path& from, const fs::path& to) {
  struct stat status {};
  if (::lstat(from.c_str(), &status) != 0) return {};  // it went away meanwhile
  const mode_t permissions = status.st_mode & 07777U;
  if (S_ISLNK(status.st_mode)) return link_file(fs::read_symlink(from), to);
  if (S_ISDIR(status.st_mode)) {
    if (::mkdir(to.c_str(), permissions) != 0 && errno != EEXIST) {
      return fail_errno(errno, fmt::format("cannot make {}", to.string()));
    }
    return bind(from, to);
  }
  if ((S_ISCHR(status.st_mode) || S_ISBLK(status.st_mode)) &&
      ::mknod(to.c_str(), status.st_mode, status.st_rdev) == 0) {
    // mknod obeys the umask; owner and group decide who may use the device.
    const bool same = ::chmod(to.c_str(), permissions) == 0 &&
                      ::chown(to.c_str(), status.st_uid, status.st_gid) == 0;
    if (same) return {};
    return fail_errno(errno, fmt::format("cannot set the owner of {}", to.string()));
  }
  // Sockets, pipes, and devices where mknod is not allowed.
  const UniqueFd place(::open(to.c_str(), O_CREAT | O_CLOEXEC | O_WRONLY, 0600));
  return bind(from, to);
}

/// Puts a tmpfs over `directory` that has all entries for which `keep` says so.
template <class Keep>
Result<void> cover(const fs::path& directory, Keep keep) {
  // Opened before it is covered, the old directory stays reachable through the descriptor.
  const UniqueFd old(::open(directory.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  struct stat status {};
  if (!old || ::fstat(old.get(), &status) != 0) {
    return fail_errno(errno, fmt::format("cannot open {}: mount sysfs on /sys and devtmpfs on /dev",
                                         directory.string()));
  }
  const std::string options = fmt::format("mode={:o}", status.st_mode & 07777U);
  if (::mount("kfdsim", directory.c_str(), "tmpfs", MS_NOSUID, options.c_str()) != 0) {
    return fail_errno(
        errno, fmt::format("cannot mount a tmpfs over {}: {}", directory.string(), policy_hint()));
  }
  const fs::path old_path = fmt::format("/proc/self/fd/{}", old.get());
  std::error_code error;
  for (const fs::directory_entry& entry : fs::directory_iterator(old_path, error)) {
    const std::string name = entry.path().filename();
    if (!keep(name)) continue;
    if (auto done = carry_over(old_path / name, directory / name); !done) return done;
  }
  if (!error) return {};
  return fail_errno(error.value(), fmt::format("cannot list {}", directory.string()));
}

Result<void> write_all(const fs::path& below, std::span<const StaticSysFile> files) {
  for (const StaticSysFile& file : files) {
    if (auto written = write_file(below / file.path, file.content); !written) return written;
  }
  return {};
}

/// libhsakmt reads the caches of each CPU and fails when the kernel tells of none, as on many
/// virtual machines. There, each CPU gets one.
Result<void> give_cpus_caches() {
  std::error_code error;
  const long cpus = ::sysconf(_SC_NPROCESSORS_CONF);
  for (std::uint32_t cpu = 0; cpu < cpus; ++cpu) {
    const fs::path directory = fmt::format("/sys/devices/system/cpu/cpu{}", cpu);
    if (!fs::exists(directory, error)) continue;
    // Tells whether the kernel lists caches at all: then it lists those of every CPU.
    if (fs::exists(directory / "cache/index0", error)) return {};
    const auto keep = [](std::string_view name) { return name != "cache"; };
    if (auto covered = cover(directory, keep); !covered) return covered;
    if (auto done = write_all(directory / "cache/index0", cpu_cache_files(cpu)); !done) return done;
  }
  return {};
}

}  // namespace

Result<void> enter_private_namespace() {
  if (::unshare(CLONE_NEWNS) != 0) {
    if (errno != EPERM) return fail_errno(errno, "cannot make a private mount namespace");
    if (auto entered = enter_user_namespace(); !entered) return entered;
  }
  if (::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) {
    return fail_errno(errno, fmt::format("cannot make the mounts private: {}", policy_hint()));
  }
  return {};
}

Result<void> replace_dev() {
  const auto keep = [](std::string_view name) {
    return name != "kfd" && name != "dri" && name != "kfdsim" && name != "shm";
  };
  if (auto covered = cover("/dev", keep); !covered) return covered;
  std::error_code error;
  // libhsakmt and rocm-smi keep files there that nobody removes when they are killed.
  fs::create_directory("/dev/shm", error);
  if (::mount("kfdsim", "/dev/shm", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777") != 0) {
    return fail_errno(errno, "cannot mount a tmpfs over /dev/shm");
  }
  fs::create_directories(fuse_directory, error);
  if (auto done = link_file("kfdsim/fs/kfd", "/dev/kfd"); !done) return done;
  if (auto done = link_file("../kfdsim/fs/renderD128", "/dev/dri/renderD128"); !done) return done;
  // rocminfo asks lsmod whether the driver is loaded.
  const fs::path lsmod = fs::path(program_directory) / "lsmod";
  if (auto done = write_file(lsmod,
                             "#!/bin/sh\n"
                             "echo 'Module                  Size  Used by'\n"
                             "echo 'amdgpu                 16384  0'\n");
      !done) {
    return done;
  }
  fs::permissions(lsmod, fs::perms(0755), error);
  return {};
}

Result<void> replace_sys(const SysFiles& files) {
  const fs::path devices = "/sys/devices/virtual";
  const auto keep_device = [](std::string_view name) { return name != "kfd"; };
  if (auto covered = cover(devices, keep_device); !covered) return covered;
  if (auto done = write_all(devices / "kfd/kfd", files.kfd); !done) return done;
  std::error_code error;
  fs::create_directory(kfd_process_directory, error);
  if (error) return fail_errno(error.value(), fmt::format("cannot make {}", kfd_process_directory));

  const fs::path classes = "/sys/class";
  const auto keep_class = [](std::string_view name) { return name != "kfd" && name != "drm"; };
  if (auto covered = cover(classes, keep_class); !covered) return covered;
  if (auto done = link_file("../../devices/virtual/kfd/kfd", classes / "kfd/kfd"); !done) {
    return done;
  }
  // Tools read the PCI address from where the links point to.
  const fs::path device = devices / "kfdsim" / pci_address;
  if (auto done = write_all(device, files.pci_device); !done) return done;
  for (const auto& [node, number] : {std::pair{"renderD128", "226:128\n"}, {"card0", "226:0\n"}}) {
    const fs::path drm = device / "drm" / node;
    if (auto done = write_file(drm / "dev", number); !done) return done;
    if (auto done = link_file(fs::path("../.."), drm / "device"); !done) return done;
    const fs::path target = fs::path("../../devices/virtual/kfdsim") / pci_address / "drm" / node;
    if (auto done = link_file(target, classes / "drm" / node); !done) return done;
  }
  for (const auto& [file, place] : {std::pair{"power1_average", "hwmon/hwmon0"},
                                    {"energy1_input", "hwmon/hwmon0"},
                                    {"mem_info_vram_used", "."}}) {
    const fs::path target = fs::path(fuse_directory) / file;
    if (auto done = link_file(target, device / place / file); !done) return done;
  }

  const fs::path modules = "/sys/module";
  const auto keep_module = [](std::string_view name) { return name != "amdgpu"; };
  if (auto covered = cover(modules, keep_module); !covered) return covered;
  if (auto done = write_file(modules / "amdgpu/initstate", "live\n"); !done) return done;
  return give_cpus_caches();
}

Result<void> replace_file(const fs::path& file, const std::string& content) {
  std::error_code error;
  if (!fs::exists(file, error)) return {};
  const fs::path ours = fs::path(private_directory) / file.filename();
  if (auto written = write_file(ours, content); !written) return written;
  return bind(ours, file);
}

}  // namespace eclip::kfdsim
