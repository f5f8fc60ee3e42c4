#include "bpf/pins.h"

#include <bpf/libbpf.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include <cerrno>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <string>

namespace eclip::bpf {
namespace {

namespace fs = std::filesystem;

Result<void> check_bpf_file_system(const fs::path& directory) {
  struct statfs status {};
  if (::statfs(directory.c_str(), &status) != 0)
    return fail_errno(errno, "examine " + directory.string());
  if (status.f_type != BPF_FS_MAGIC)
    return fail(Errc::unsupported, directory.string() +
                                       " is no BPF file system, where the programs live on without "
                                       "eclipd: mount -t bpf bpf /sys/fs/bpf");
  return {};
}

int print_if_asked(libbpf_print_level, const char* format, va_list arguments) {
  return std::getenv("LIBBPF_LOG_LEVEL") != nullptr ? std::vfprintf(stderr, format, arguments) : 0;
}

}  // namespace

Result<UniqueFd> lock_pin_directory(const fs::path& directory) {
  while (true) {
    UniqueFd fd(::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    struct stat locked {};
    struct stat there {};
    if (!fd || ::flock(fd.get(), LOCK_EX) != 0 || ::fstat(fd.get(), &locked) != 0 ||
        ::stat(directory.c_str(), &there) != 0)
      return fail_errno(errno, "lock " + directory.string());
    // Whoever had the lock may have removed it.
    if (locked.st_ino == there.st_ino) return fd;
  }
}

Result<UniqueFd> make_pin_directory(const fs::path& directory) {
  if (auto checked = check_bpf_file_system(directory.parent_path()); !checked)
    return tl::unexpected(checked.error());
  if (::mkdir(directory.c_str(), 0700) != 0 && errno != EEXIST)
    return fail_errno(errno, "create " + directory.string());
  return lock_pin_directory(directory);
}

Result<void> remove_pins(const fs::path& directory) {
  std::error_code error;
  for (const bool links : {true, false})
    for (const auto& entry : fs::directory_iterator(directory, error))
      if (entry.path().filename().string().starts_with("link_") == links)
        if (std::error_code failed; !fs::remove(entry.path(), failed) && failed)
          return tl::unexpected(Error{failed, "remove " + entry.path().string()});
  if (error) return tl::unexpected(Error{error, "read " + directory.string()});
  return {};
}

Result<bool> remove_pin_directory(const fs::path& directory) {
  std::error_code error;
  const bool exists = fs::exists(directory, error);
  if (error) return tl::unexpected(Error{error, "examine " + directory.string()});
  if (!exists) return false;
  if (auto checked = check_bpf_file_system(directory); !checked)
    return tl::unexpected(checked.error());
  const auto locked = lock_pin_directory(directory);
  if (!locked) return tl::unexpected(locked.error());
  const bool was_there = !fs::is_empty(directory, error);
  if (auto removed = remove_pins(directory); !removed) return tl::unexpected(removed.error());
  fs::remove(directory, error);
  if (error) return tl::unexpected(Error{error, "remove " + directory.string()});
  return was_there;
}

void quiet_libbpf() {
  libbpf_set_print(print_if_asked);
}

}  // namespace eclip::bpf
