#include "tools/kfdsim/process_files.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string>
#include <system_error>
#include <utility>

#include "ipc/unique_fd.h"
#include "tools/kfdsim/gpu.h"
#include "tools/kfdsim/mount_namespace.h"
#include "tools/kfdsim/report.h"

namespace eclip::kfdsim {
namespace {

namespace fs = std::filesystem;

// Of the same file system, and nothing that anybody lists: a directory is built here before it
// appears, and goes here to be taken apart.
constexpr const char* staging_directory = "/sys/devices/virtual/kfdsim/proc";

/// The first thing that went wrong; the rest is not tried.
class Steps {
 public:
  void make_directory(const fs::path& path) {
    if (error_ == 0 && ::mkdir(path.c_str(), 0755) != 0) failed(path);
  }
  void write(const fs::path& path, const std::string& text) {
    if (error_ != 0) return;
    const UniqueFd file(::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0444));
    if (!file || ::write(file.get(), text.data(), text.size()) != std::ssize(text)) failed(path);
  }
  void link(const fs::path& path, const std::string& target) {
    if (error_ == 0 && ::symlink(target.c_str(), path.c_str()) != 0) failed(path);
  }
  void move(const fs::path& from, const fs::path& to) {
    if (error_ == 0 && ::rename(from.c_str(), to.c_str()) != 0) failed(to);
  }
  ~Steps() {
    if (error_ == 0) return;
    report(fmt::format("cannot make {}: {}; a process works, and is missing there", path_.string(),
                       std::strerror(error_)));
  }
  Steps() = default;
  Steps(const Steps&) = delete;
  Steps& operator=(const Steps&) = delete;

 private:
  void failed(const fs::path& path) {
    error_ = errno != 0 ? errno : EIO;
    path_ = path;
  }

  int error_ = 0;
  fs::path path_;
};

fs::path staging_place() {
  fs::path place = fs::path(staging_directory) / "one";
  std::error_code error;
  fs::create_directories(staging_directory, error);
  fs::remove_all(place, error);
  return place;
}

/// At once for whoever looks; a directory that is not there is none of ours to report.
void remove_directory(const fs::path& path) {
  const fs::path place = staging_place();
  std::error_code error;
  if (::rename(path.c_str(), place.c_str()) == 0) fs::remove_all(place, error);
}

fs::path directory_of(pid_t pid) {
  return fs::path(kfd_process_directory) / std::to_string(pid);
}

}  // namespace

ProcessFiles::ProcessFiles(pid_t pid, std::uint32_t pasid) : pid_(pid) {
  const fs::path place = staging_place();
  Steps steps;
  steps.make_directory(place);
  steps.make_directory(place / "queues");
  steps.write(place / "pasid", fmt::format("{}\n", pasid));
  for (const auto& [name, prefix] :
       {std::pair{"vram", process_vram_prefix}, {"sdma", process_sdma_prefix}}) {
    steps.link(place / fmt::format("{}_{}", name, kfd_gpu_id),
               fmt::format("{}/{}{}", fuse_directory, prefix, pid));
  }
  steps.move(place, directory_of(pid));
}

ProcessFiles::~ProcessFiles() {
  remove_directory(directory_of(pid_));
}

fs::path ProcessFiles::queue(std::uint32_t id) const {
  return directory_of(pid_) / "queues" / std::to_string(id);
}

// A queue's files end without a newline: so the driver writes them.

void ProcessFiles::add_queue(std::uint32_t id, std::uint32_t type, std::uint64_t bytes) {
  const fs::path place = staging_place();
  Steps steps;
  steps.make_directory(place);
  steps.write(place / "gpuid", std::to_string(kfd_gpu_id));
  steps.write(place / "size", std::to_string(bytes));
  steps.write(place / "type", std::to_string(type));
  steps.move(place, queue(id));
}

void ProcessFiles::resize_queue(std::uint32_t id, std::uint64_t bytes) {
  const fs::path place = staging_place();
  Steps steps;
  steps.write(place, std::to_string(bytes));
  steps.move(place, queue(id) / "size");
}

void ProcessFiles::remove_queue(std::uint32_t id) {
  remove_directory(queue(id));
}

}  // namespace eclip::kfdsim
