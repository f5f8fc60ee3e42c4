// Base of the tests that make ioctls themselves, beside those of libhsakmt.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>

#include "tests/integration/kfdsim/gpu_client.h"
#include "tests/integration/kfdsim/inside_fixture.h"

namespace eclip::test {

inline constexpr std::uint32_t gpu_id = 49374;

/// A process that has acquired the GPU, with an open of /dev/kfd of its own.
class OpenKfd : public InsideKfdsim {
 protected:
  void SetUp() override {
    InsideKfdsim::SetUp();
    if (IsSkipped()) return;
    gpu_node();
    kfd_ = ::open("/dev/kfd", O_RDWR | O_CLOEXEC);
    ASSERT_GE(kfd_, 0);
  }
  void TearDown() override {
    if (kfd_ >= 0) ::close(kfd_);
  }
  /// 0 or the errno of the ioctl.
  int call(unsigned long command, void* argument) const {
    return ::ioctl(kfd_, command, argument) == 0 ? 0 : errno;
  }
  template <class Args>
  int call(unsigned long command, Args& arguments) const {
    return call(command, static_cast<void*>(&arguments));
  }
  [[nodiscard]] int kfd() const { return kfd_; }

 private:
  int kfd_ = -1;
};

}  // namespace eclip::test
