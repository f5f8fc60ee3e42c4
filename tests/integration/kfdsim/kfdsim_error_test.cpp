// What the simulated driver refuses, with the error numbers of the real one.
#include <gtest/gtest.h>
#include <linux/kfd_ioctl.h>

#include <array>
#include <memory>
#include <vector>

#include "tests/integration/kfdsim/gpu_client.h"
#include "tests/integration/kfdsim/open_kfd.h"

namespace eclip::test {
namespace {

using KfdsimError = OpenKfd;

TEST_F(KfdsimError, The128thQueueOfAProcessIsRefused) {
  std::vector<std::unique_ptr<GpuQueue>> queues;
  queues.reserve(127);
  for (int i = 0; i < 127; ++i) queues.push_back(std::make_unique<GpuQueue>());
  EXPECT_ANY_THROW(GpuQueue());
  kfd_ioctl_create_queue_args arguments{};
  arguments.gpu_id = gpu_id;
  arguments.queue_type = KFD_IOC_QUEUE_TYPE_COMPUTE_AQL;
  EXPECT_EQ(call(AMDKFD_IOC_CREATE_QUEUE, arguments), ENOSPC);
  queues.pop_back();
  EXPECT_NO_THROW(GpuQueue());
}

TEST_F(KfdsimError, SetCuMask) {
  std::array<std::uint32_t, 2> words{1, 0};
  kfd_ioctl_set_cu_mask_args arguments{};
  arguments.queue_id = 999;
  arguments.cu_mask_ptr = reinterpret_cast<std::uint64_t>(words.data());
  for (const auto& [bits, expected] :
       {std::pair{0U, EINVAL}, {31U, EINVAL}, {48U, EINVAL}, {64U, EFAULT}}) {
    arguments.num_cu_mask = bits;
    EXPECT_EQ(call(AMDKFD_IOC_SET_CU_MASK, arguments), expected) << bits << " bits";
  }
  arguments.cu_mask_ptr = 8;
  EXPECT_EQ(call(AMDKFD_IOC_SET_CU_MASK, arguments), EFAULT);
}

TEST_F(KfdsimError, UnknownQueuesAndCommands) {
  kfd_ioctl_destroy_queue_args destroy{};
  destroy.queue_id = 999;
  EXPECT_EQ(call(AMDKFD_IOC_DESTROY_QUEUE, destroy), EINVAL);
  kfd_ioctl_update_queue_args update{};
  update.queue_id = 999;
  EXPECT_EQ(call(AMDKFD_IOC_UPDATE_QUEUE, update), EFAULT);
  EXPECT_EQ(call(AMDKFD_IOWR(0x82, kfd_ioctl_destroy_queue_args), destroy), EINVAL);
  kfd_ioctl_set_xnack_mode_args xnack{-1};
  EXPECT_EQ(call(AMDKFD_IOC_SET_XNACK_MODE, xnack), EPERM);
}

TEST_F(KfdsimError, OnlyTheLowestByteOfACommandCounts) {
  kfd_ioctl_get_version_args version{};
  EXPECT_EQ(call(_IOC(_IOC_READ | _IOC_WRITE, 'Z', 0x01, sizeof version), version), 0);
  EXPECT_EQ(version.major_version, 1U);
  kfd_ioctl_create_queue_args nothing{};
  EXPECT_EQ(call(0x5102, nothing), EINVAL);
}

TEST_F(KfdsimError, CreateQueue) {
  kfd_ioctl_create_queue_args good{};
  good.gpu_id = gpu_id;
  good.queue_type = KFD_IOC_QUEUE_TYPE_COMPUTE_AQL;
  good.queue_percentage = 100;
  auto arguments = good;
  arguments.queue_percentage = 101;
  EXPECT_EQ(call(AMDKFD_IOC_CREATE_QUEUE, arguments), EINVAL);
  arguments = good;
  arguments.queue_priority = 16;
  EXPECT_EQ(call(AMDKFD_IOC_CREATE_QUEUE, arguments), EINVAL);
  arguments = good;
  arguments.gpu_id = 1;
  EXPECT_EQ(call(AMDKFD_IOC_CREATE_QUEUE, arguments), EINVAL);
  arguments = good;
  arguments.queue_type = 9;
  EXPECT_EQ(call(AMDKFD_IOC_CREATE_QUEUE, arguments), 524);
  arguments = good;
  arguments.ring_size = 4096 + 64;
  EXPECT_EQ(call(AMDKFD_IOC_CREATE_QUEUE, arguments), EINVAL);
  arguments = good;
  arguments.ring_size = 4096;
  arguments.ring_base_address = 4096;  // not mapped on the GPU
  EXPECT_EQ(call(AMDKFD_IOC_CREATE_QUEUE, arguments), EINVAL);
}

TEST_F(KfdsimError, SdmaQueuesExistOnly) {
  const GpuBuffer memory(GpuBuffer::Kind::system, 8192);
  HsaQueueResource resource{};
  ASSERT_EQ(hsaKmtCreateQueue(gpu_node(), HSA_QUEUE_SDMA, 100, HSA_QUEUE_PRIORITY_NORMAL,
                              memory.cpu(), 4096, nullptr, &resource),
            HSAKMT_STATUS_SUCCESS);
  *resource.Queue_DoorBell_aql = 64;
  EXPECT_EQ(hsaKmtDestroyQueue(resource.QueueId), HSAKMT_STATUS_SUCCESS);
}

TEST_F(KfdsimError, SdmaQueuesAreNotShared) {
  constexpr int hardware_has = 16;
  const GpuBuffer memory(GpuBuffer::Kind::system, 8192);
  kfd_ioctl_create_queue_args arguments{};
  arguments.gpu_id = gpu_id;
  arguments.queue_type = KFD_IOC_QUEUE_TYPE_SDMA;
  arguments.ring_base_address = memory.gpu();
  arguments.ring_size = 4096;
  arguments.read_pointer_address = memory.gpu() + 4096;
  arguments.write_pointer_address = memory.gpu() + 4096 + 64;
  std::vector<std::uint32_t> ids;
  int error = 0;
  while ((error = call(AMDKFD_IOC_CREATE_QUEUE, arguments)) == 0) ids.push_back(arguments.queue_id);
  EXPECT_EQ(error, ENOMEM);
  EXPECT_EQ(ids.size(), hardware_has);
  for (const std::uint32_t id : ids) {
    kfd_ioctl_destroy_queue_args destroy{id, 0};
    EXPECT_EQ(call(AMDKFD_IOC_DESTROY_QUEUE, destroy), 0);
  }
}

TEST_F(KfdsimError, Memory) {
  kfd_ioctl_alloc_memory_of_gpu_args allocate{};
  allocate.gpu_id = gpu_id;
  allocate.va_addr = 1ULL << 40;
  allocate.size = 4096;
  allocate.flags = KFD_IOC_ALLOC_MEM_FLAGS_GTT;
  ASSERT_EQ(call(AMDKFD_IOC_ALLOC_MEMORY_OF_GPU, allocate), 0);

  std::uint32_t gpu = gpu_id;
  kfd_ioctl_map_memory_to_gpu_args map{};
  map.handle = allocate.handle;
  map.device_ids_array_ptr = reinterpret_cast<std::uint64_t>(&gpu);
  EXPECT_EQ(call(AMDKFD_IOC_MAP_MEMORY_TO_GPU, map), EINVAL) << "no devices";
  map.n_devices = 1;
  EXPECT_EQ(call(AMDKFD_IOC_MAP_MEMORY_TO_GPU, map), 0);
  EXPECT_EQ(map.n_success, 1U);

  auto overlapping = allocate;
  ASSERT_EQ(call(AMDKFD_IOC_ALLOC_MEMORY_OF_GPU, overlapping), 0);
  auto map_again = map;
  map_again.handle = overlapping.handle;
  map_again.n_success = 0;
  EXPECT_EQ(call(AMDKFD_IOC_MAP_MEMORY_TO_GPU, map_again), EINVAL) << "the addresses are taken";
  kfd_ioctl_free_memory_of_gpu_args free_overlapping{overlapping.handle};
  EXPECT_EQ(call(AMDKFD_IOC_FREE_MEMORY_OF_GPU, free_overlapping), 0);

  kfd_ioctl_free_memory_of_gpu_args free{allocate.handle};
  EXPECT_EQ(call(AMDKFD_IOC_FREE_MEMORY_OF_GPU, free), EBUSY) << "still mapped";
  kfd_ioctl_unmap_memory_from_gpu_args unmap{};
  unmap.handle = allocate.handle;
  unmap.device_ids_array_ptr = map.device_ids_array_ptr;
  unmap.n_devices = 1;
  EXPECT_EQ(call(AMDKFD_IOC_UNMAP_MEMORY_FROM_GPU, unmap), 0);
  EXPECT_EQ(call(AMDKFD_IOC_FREE_MEMORY_OF_GPU, free), 0);
  EXPECT_EQ(call(AMDKFD_IOC_FREE_MEMORY_OF_GPU, free), EINVAL) << "freed twice";

  allocate.size = 0;
  EXPECT_EQ(call(AMDKFD_IOC_ALLOC_MEMORY_OF_GPU, allocate), EINVAL);
  allocate.size = 1ULL << 46;
  EXPECT_EQ(call(AMDKFD_IOC_ALLOC_MEMORY_OF_GPU, allocate), ENOMEM);
  allocate.size = 4096;
  allocate.flags = KFD_IOC_ALLOC_MEM_FLAGS_USERPTR;
  allocate.mmap_offset = 4096;  // nothing there
  EXPECT_EQ(call(AMDKFD_IOC_ALLOC_MEMORY_OF_GPU, allocate), EFAULT);
}

TEST_F(KfdsimError, Events) {
  kfd_ioctl_set_event_args set{};
  set.event_id = 77777;
  EXPECT_EQ(call(AMDKFD_IOC_SET_EVENT, set), EINVAL);
  std::array<kfd_event_data, 1> data{};
  data[0].event_id = 77777;
  kfd_ioctl_wait_events_args wait{};
  wait.num_events = 1;
  wait.events_ptr = reinterpret_cast<std::uint64_t>(data.data());
  EXPECT_EQ(call(AMDKFD_IOC_WAIT_EVENTS, wait), EINVAL);
}

}  // namespace
}  // namespace eclip::test
