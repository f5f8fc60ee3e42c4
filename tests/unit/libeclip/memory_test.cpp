// Memory, code images and kernels.
#include "tests/unit/libeclip/worker.h"

namespace eclip::test {
namespace {

class MemoryObjects : public Worker {
 protected:
  explicit MemoryObjects(FakeDaemon::Behaviour behaviour = {}) : Worker(std::move(behaviour)) {}
  static eclip_memory blank() {
    eclip_memory memory{};
    memory.struct_size = sizeof memory;
    return memory;
  }
};

TEST_F(MemoryObjects, AreSharedWithEclipd) {
  connect();
  eclip_memory memory = blank();
  ASSERT_EQ(eclip_memory_allocate(context, 100, 0, &memory), 0) << eclip_last_error();
  EXPECT_EQ(memory.bytes, 4096U);
  ASSERT_NE(memory.host, nullptr);
  static_cast<char*>(memory.host)[4095] = 'x';
  EXPECT_EQ(static_cast<const char*>(daemon.memory(memory.handle))[4095], 'x');
  EXPECT_EQ(memory.gpu_address, reinterpret_cast<std::uintptr_t>(daemon.memory(memory.handle)));
  ASSERT_EQ(eclip_memory_free(context, &memory), 0);
  const auto frees = daemon.requests(MessageType::memory_free);
  ASSERT_EQ(frees.size(), 1U);
  EXPECT_EQ(payload_of<Handle>(frees[0]).value, memory.handle);
}

TEST_F(MemoryObjects, HaveNoHostAddressInDeviceMemory) {
  connect();
  eclip_memory memory = blank();
  ASSERT_EQ(eclip_memory_allocate(context, 4096, ECLIP_MEMORY_DEVICE_LOCAL, &memory), 0);
  EXPECT_EQ(memory.host, nullptr);
  EXPECT_NE(memory.gpu_address, 0U);
  EXPECT_EQ(eclip_memory_free(context, &memory), 0);
}

TEST_F(MemoryObjects, AreRefusedForNoBytesOrUnknownFlags) {
  connect();
  eclip_memory memory = blank();
  EXPECT_EQ(eclip_memory_allocate(context, 0, 0, &memory), -EINVAL);
  EXPECT_EQ(eclip_memory_allocate(context, 4096, 2, &memory), -EINVAL);
  memory.struct_size = 8;
  EXPECT_EQ(eclip_memory_allocate(context, 4096, 0, &memory), -EINVAL);
  EXPECT_TRUE(daemon.requests(MessageType::memory_allocate).empty());
}

class ShortMemory : public MemoryObjects {
 protected:
  ShortMemory() : MemoryObjects({.answer = {}, .truncate_memory = true}) {}
};

TEST_F(ShortMemory, IsRefusedBeforeAnythingCanTouchIt) {
  connect();
  eclip_memory memory = blank();
  EXPECT_EQ(eclip_memory_allocate(context, 8192, 0, &memory), -EPROTO);
  EXPECT_EQ(memory.host, nullptr);
}

TEST_F(MemoryObjects, CodeArrivesWholeAndSealed) {
  connect();
  std::vector<std::byte> image(100'000);
  for (std::size_t i = 0; i < image.size(); ++i) image[i] = static_cast<std::byte>(i * 7);
  std::uint32_t code = 0;
  ASSERT_EQ(eclip_code_load(context, image.data(), image.size(), &code), 0) << eclip_last_error();
  EXPECT_NE(code, 0U);
  EXPECT_EQ(daemon.code_image(), image);
  EXPECT_EQ(eclip_code_load(context, image.data(), 0, &code), -EINVAL);
}

TEST_F(MemoryObjects, KernelsAreRegisteredByOffset) {
  connect();
  std::uint32_t kernel = 0;
  ASSERT_EQ(eclip_kernel_register(context, 3, 128, 64, &kernel), 0);
  const auto requests = daemon.requests(MessageType::kernel_register);
  ASSERT_EQ(requests.size(), 1U);
  const auto request = payload_of<KernelRegister>(requests[0]);
  EXPECT_EQ(request.code, 3U);
  EXPECT_EQ(request.offset, 128U);
  EXPECT_EQ(request.kernarg_bytes, 64U);
  EXPECT_EQ(eclip_kernel_register(context, 3, 100, 64, &kernel), -EINVAL);
}

}  // namespace
}  // namespace eclip::test
