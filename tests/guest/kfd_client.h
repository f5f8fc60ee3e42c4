// A client of the guest's /dev/kfd, and what the stand-in for the driver knows itself.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/kfd_ioctl.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <new>
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

/// A child process that runs its body when it is told to, so that it can be given a lease before.
class Client {
 public:
  template <class Body>
  explicit Client(Body body) {
    if (::pipe2(go_.data(), O_CLOEXEC) != 0) std::abort();
    pid_ = ::fork();
    if (pid_ != 0) {
      ::close(go_[0]);
      return;
    }
    ::close(go_[1]);
    char byte = 0;
    if (::read(go_[0], &byte, 1) != 1) ::_exit(99);
    ::_exit(body());
  }
  ~Client() {
    if (pid_ > 0) {
      ::kill(pid_, SIGKILL);
      ::waitpid(pid_, nullptr, 0);
    }
    if (go_[1] >= 0) ::close(go_[1]);
  }
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;

  [[nodiscard]] pid_t pid() const { return pid_; }
  void go() { EXPECT_EQ(::write(go_[1], "", 1), 1); }
  /// Waits until it has stopped itself (SIGSTOP); false when it has ended instead.
  [[nodiscard]] bool stops() const {
    int status = 0;
    return ::waitpid(pid_, &status, WUNTRACED) == pid_ && WIFSTOPPED(status);
  }
  void go_on() { ::kill(pid_, SIGCONT); }
  /// The body's result; -signal when it was killed.
  int wait() {
    int status = 0;
    ::waitpid(pid_, &status, 0);
    pid_ = -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
  }

 private:
  std::array<int, 2> go_{-1, -1};
  pid_t pid_ = -1;
};

/// An ioctl as a 32-bit program makes it, with an argument below 4 GiB: 0 or the error number.
inline int call_by_int80(const Kfd& kfd, unsigned long command, void* argument) {
  long result = 54;
  asm volatile("int $0x80"
               : "+a"(result)
               : "b"(kfd.fd()), "c"(command), "d"(argument)
               : "memory", "r8", "r9", "r10", "r11");
  return static_cast<int>(-result);
}
/// A page there.
inline void* low_memory() {
  return ::mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1,
                0);
}
/// SET_CU_MASK so.
inline int mask_by_int80(const Kfd& kfd) {
  void* const low = low_memory();
  auto* const arguments = new (low) kfd_ioctl_set_cu_mask_args{};
  auto* const words = reinterpret_cast<std::uint32_t*>(arguments + 1);
  words[0] = 0x7fff;
  arguments->num_cu_mask = 32;
  arguments->cu_mask_ptr = reinterpret_cast<std::uintptr_t>(words);
  return call_by_int80(kfd, AMDKFD_IOC_SET_CU_MASK, arguments);
}

}  // namespace eclip::test
