// Several processes on unmodified HIP. The tests' own process never uses it: HIP, like the driver,
// does not survive fork.
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>

#include "tests/integration/hip/hip_test.h"

namespace eclip::test {
namespace {

pid_t start_child(int (*body)()) {
  const pid_t child = ::fork();
  if (child == 0) ::_exit(body());
  return child;
}

/// -1 when it did not exit.
int exit_status(pid_t child) {
  int status = -1;
  if (::waitpid(child, &status, 0) != child) return -1;
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

int count_to_thousand() {
  const auto device = device_array<unsigned>(1000);
  if (!device) return 1;
  launch_iota(nullptr, device.get(), 1, 1000);
  std::vector<unsigned> values(1000);
  if (hipMemcpy(values.data(), device.get(), 4000, hipMemcpyDeviceToHost) != hipSuccess) return 2;
  return values == counted(1, 1000) ? 0 : 3;
}

TEST_F(Hip, ForkedChildrenUseTheGpuAtOnce) {
  std::vector<pid_t> children;
  for (int i = 0; i < 3; ++i) {
    children.push_back(start_child(count_to_thousand));
  }
  for (const pid_t child : children) EXPECT_EQ(exit_status(child), 0);
}

int with_half_of_the_cus() {
  ::setenv("HSA_CU_MASK", "0:0-29", 1);
  return axpy_milliseconds(Stream()) >= 3.99F ? 0 : 1;
}

int with_masks_within_and_beyond() {
  ::setenv("HSA_CU_MASK", "0:0-29", 1);
  // On ten CUs it takes 12 ms, as axpy.json has it.
  if (axpy_milliseconds(Stream({0x3FF, 0})) < 11.9F) return 1;
  // CUs 20 to 39. The runtime confines such a queue to 20 to 29 and says so, which HIP 5.2.3 takes
  // for a failure.
  const std::vector<std::uint32_t> beyond{0xFFF00000, 0xFF};
  hipStream_t stream = nullptr;
  if (hipExtStreamCreateWithCUMask(&stream, 2, beyond.data()) != hipErrorOutOfMemory) return 2;
  return axpy_milliseconds(Stream()) >= 3.99F ? 0 : 3;
}

TEST_F(Hip, HsaCuMaskConfinesAllQueues) {
  EXPECT_EQ(exit_status(start_child(with_half_of_the_cus)), 0);
  EXPECT_EQ(exit_status(start_child(with_masks_within_and_beyond)), 0);
}

}  // namespace
}  // namespace eclip::test
