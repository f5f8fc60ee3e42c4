// A client of the guest's /dev/kfd, and what the stand-in for the driver knows itself.
#pragma once

#include <fcntl.h>
#include <linux/kfd_ioctl.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <string>

namespace eclip::test {

constexpr std::uint32_t late_queue_percentage = 13;  // kfd_stand_in.c
constexpr std::uint32_t any_gpu = 1;

inline std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value ? value : "";
}

inline bool is_stand_in() {
  return environment("ECLIP_GUEST_DRIVER").rfind("stand-in", 0) == 0;
}
inline std::string module_name() {
  return is_stand_in() ? "kfd_stand_in" : "amdgpu";
}

inline std::string contents(const std::string& path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), {}};
}

/// What the stand-in itself knows: "queues", "masked", "masked_max" or "processes".
inline int truth(const std::string& name) {
  return std::atoi(contents("/sys/kernel/debug/kfd_stand_in/" + name).c_str());
}

/// An open /dev/kfd. Calls return 0 or errno.
class Kfd {
 public:
  Kfd() : fd_(::open("/dev/kfd", O_RDWR | O_CLOEXEC)) {}
  ~Kfd() { ::close(fd_); }
  Kfd(const Kfd&) = delete;
  Kfd& operator=(const Kfd&) = delete;

  [[nodiscard]] int fd() const { return fd_; }

  int call(unsigned long command, void* arguments) const {
    return ::ioctl(fd_, command, arguments) == 0 ? 0 : errno;
  }
  int create_queue(std::uint32_t* queue, std::uint32_t gpu = any_gpu,
                   std::uint32_t percentage = 100,
                   std::uint32_t type = KFD_IOC_QUEUE_TYPE_COMPUTE_AQL) const {
    kfd_ioctl_create_queue_args arguments{};
    arguments.gpu_id = gpu;
    arguments.queue_percentage = percentage;
    arguments.queue_type = type;
    arguments.ring_size = 4096;
    const int error = call(AMDKFD_IOC_CREATE_QUEUE, &arguments);
    *queue = arguments.queue_id;
    return error;
  }
  int mask(std::uint32_t queue, std::uint32_t bits = 64) const {
    std::array<std::uint32_t, 2> words{0x7fff, 0};
    kfd_ioctl_set_cu_mask_args arguments{queue, bits,
                                         reinterpret_cast<std::uintptr_t>(words.data())};
    return call(AMDKFD_IOC_SET_CU_MASK, &arguments);
  }
  int destroy(std::uint32_t queue) const {
    kfd_ioctl_destroy_queue_args arguments{queue, 0};
    return call(AMDKFD_IOC_DESTROY_QUEUE, &arguments);
  }

 private:
  int fd_;
};

/// Runs what returns an exit status in a child process; its status.
template <class Body>
int in_child(Body body) {
  const pid_t child = ::fork();
  if (child == 0) ::_exit(body());
  int status = 0;
  ::waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

}  // namespace eclip::test
