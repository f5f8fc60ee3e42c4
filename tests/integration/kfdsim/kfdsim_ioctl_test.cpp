// Every command number of the KFD, with arguments, pointers and sizes good and bad, against one
// table.
#include <gtest/gtest.h>
#include <linux/kfd_ioctl.h>
#include <sys/wait.h>

#include <array>
#include <cstring>
#include <fstream>
#include <iterator>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "tests/integration/kfdsim/child_process.h"
#include "tests/integration/kfdsim/open_kfd.h"

namespace eclip::test {
namespace {

// A later driver's header has more commands: the table below and the one in docs/kfdsim.md too.
static_assert(AMDKFD_COMMAND_START == 0x01 && AMDKFD_COMMAND_END == 0x24);

/// A command and its errno when each byte of its argument is 0, and when each is 0xff.
struct Row {
  const char* name;
  std::size_t bytes;
  int zeros;
  int ones;
};

const std::map<unsigned, Row>& rows() {
  static const std::map<unsigned, Row> table{
      {0x01, {"GET_VERSION", sizeof(kfd_ioctl_get_version_args), 0, 0}},
      {0x02, {"CREATE_QUEUE", sizeof(kfd_ioctl_create_queue_args), EINVAL, EINVAL}},
      {0x03, {"DESTROY_QUEUE", sizeof(kfd_ioctl_destroy_queue_args), EINVAL, EINVAL}},
      {0x04, {"SET_MEMORY_POLICY", sizeof(kfd_ioctl_set_memory_policy_args), EINVAL, EINVAL}},
      {0x05, {"GET_CLOCK_COUNTERS", sizeof(kfd_ioctl_get_clock_counters_args), 0, 0}},
      {0x06, {"GET_PROCESS_APERTURES", sizeof(kfd_ioctl_get_process_apertures_args), 0, 0}},
      {0x07, {"UPDATE_QUEUE", sizeof(kfd_ioctl_update_queue_args), EFAULT, EINVAL}},
      {0x08, {"CREATE_EVENT", sizeof(kfd_ioctl_create_event_args), 0, EINVAL}},
      {0x09, {"DESTROY_EVENT", sizeof(kfd_ioctl_destroy_event_args), EINVAL, EINVAL}},
      {0x0a, {"SET_EVENT", sizeof(kfd_ioctl_set_event_args), EINVAL, EINVAL}},
      {0x0b, {"RESET_EVENT", sizeof(kfd_ioctl_reset_event_args), EINVAL, EINVAL}},
      {0x0c, {"WAIT_EVENTS", sizeof(kfd_ioctl_wait_events_args), 0, ENOMEM}},
      {0x0d, {"DBG_REGISTER", sizeof(kfd_ioctl_dbg_register_args), EPERM, EPERM}},
      {0x0e, {"DBG_UNREGISTER", sizeof(kfd_ioctl_dbg_unregister_args), EPERM, EPERM}},
      {0x0f, {"DBG_ADDRESS_WATCH", sizeof(kfd_ioctl_dbg_address_watch_args), EPERM, EPERM}},
      {0x10, {"DBG_WAVE_CONTROL", sizeof(kfd_ioctl_dbg_wave_control_args), EPERM, EPERM}},
      {0x11,
       {"SET_SCRATCH_BACKING_VA", sizeof(kfd_ioctl_set_scratch_backing_va_args), EINVAL, EINVAL}},
      {0x12, {"GET_TILE_CONFIG", sizeof(kfd_ioctl_get_tile_config_args), EINVAL, EINVAL}},
      {0x13, {"SET_TRAP_HANDLER", sizeof(kfd_ioctl_set_trap_handler_args), EINVAL, EINVAL}},
      {0x14,
       {"GET_PROCESS_APERTURES_NEW", sizeof(kfd_ioctl_get_process_apertures_new_args), 0, ENOMEM}},
      {0x15, {"ACQUIRE_VM", sizeof(kfd_ioctl_acquire_vm_args), EINVAL, EINVAL}},
      {0x16, {"ALLOC_MEMORY_OF_GPU", sizeof(kfd_ioctl_alloc_memory_of_gpu_args), EINVAL, EINVAL}},
      {0x17, {"FREE_MEMORY_OF_GPU", sizeof(kfd_ioctl_free_memory_of_gpu_args), EINVAL, EINVAL}},
      {0x18, {"MAP_MEMORY_TO_GPU", sizeof(kfd_ioctl_map_memory_to_gpu_args), EINVAL, ENOMEM}},
      {0x19,
       {"UNMAP_MEMORY_FROM_GPU", sizeof(kfd_ioctl_unmap_memory_from_gpu_args), EINVAL, ENOMEM}},
      {0x1a, {"SET_CU_MASK", sizeof(kfd_ioctl_set_cu_mask_args), EINVAL, EINVAL}},
      {0x1b, {"GET_QUEUE_WAVE_STATE", sizeof(kfd_ioctl_get_queue_wave_state_args), EFAULT, EFAULT}},
      {0x1c, {"GET_DMABUF_INFO", sizeof(kfd_ioctl_get_dmabuf_info_args), EINVAL, ENOMEM}},
      {0x1d, {"IMPORT_DMABUF", sizeof(kfd_ioctl_import_dmabuf_args), EINVAL, EBADF}},
      {0x1e, {"ALLOC_QUEUE_GWS", sizeof(kfd_ioctl_alloc_queue_gws_args), EINVAL, EINVAL}},
      {0x1f, {"SMI_EVENTS", sizeof(kfd_ioctl_smi_events_args), EINVAL, EINVAL}},
      {0x20, {"SVM", sizeof(kfd_ioctl_svm_args), EPERM, EPERM}},
      {0x21, {"SET_XNACK_MODE", sizeof(kfd_ioctl_set_xnack_mode_args), EPERM, EPERM}},
      {0x22, {"CRIU_OP", sizeof(kfd_ioctl_criu_args), ENODEV, EINVAL}},
      {0x23, {"AVAILABLE_MEMORY", sizeof(kfd_ioctl_get_available_memory_args), EINVAL, EINVAL}},
  };
  return table;
}
constexpr unsigned last_number = 0x40;

unsigned long command_of(unsigned number, std::size_t bytes) {
  return _IOC(_IOC_READ | _IOC_WRITE, AMDKFD_IOCTL_BASE, number, bytes);
}

/// Each test has no queue of its own, and another process at work that it must not disturb.
class KfdsimIoctl : public OpenKfd {
 protected:
  void SetUp() override {
    OpenKfd::SetUp();
    if (IsSkipped()) return;
    other_.emplace(std::vector<std::string>{KFDSIM_CLIENT, "work", "2000"});
  }
  void TearDown() override {
    OpenKfd::TearDown();
    if (!other_) return;
    EXPECT_EQ(other_->wait(), 0) << "the other process: " << other_->errors();
    const GpuSignal done;
    GpuQueue queue;
    queue.barrier(false, {}, &done);
    EXPECT_TRUE(done.wait()) << "this process";
  }

 private:
  std::optional<ChildProcess> other_;
};

TEST_F(KfdsimIoctl, EveryNumberAnswersAsTheTableSays) {
  for (unsigned number = 0; number <= last_number; ++number) {
    const auto found = rows().find(number);
    const Row row = found == rows().end() ? Row{"?", 64, EINVAL, EINVAL} : found->second;
    std::vector<std::byte> argument(row.bytes);
    EXPECT_EQ(call(command_of(number, row.bytes), argument.data()), row.zeros)
        << std::hex << number << " " << row.name << " of zeros";
    argument.assign(row.bytes, std::byte{0xff});
    EXPECT_EQ(call(command_of(number, row.bytes), argument.data()), row.ones)
        << std::hex << number << " " << row.name << " of ones";
  }
}

TEST_F(KfdsimIoctl, AnArgumentThatIsNotThereIsEfault) {
  for (const auto& [number, row] : rows()) {
    for (const std::uintptr_t address : {8UL, 0x7fffffffe000UL, ~7UL}) {
      EXPECT_EQ(call(command_of(number, row.bytes), reinterpret_cast<void*>(address)), EFAULT)
          << row.name << " at " << std::hex << address;
    }
  }
}

TEST_F(KfdsimIoctl, ShortArgumentsAreZerosAndLongOnesAreCutOff) {
  constexpr std::size_t most = (1U << _IOC_SIZEBITS) - 1;
  constexpr std::byte guard{0x5a};
  for (const auto& [number, row] : rows()) {
    for (const std::size_t bytes :
         {std::size_t{0}, std::size_t{1}, row.bytes / 2, row.bytes + 8, std::size_t{4096}, most}) {
      std::vector<std::byte> argument(bytes + 64, guard);
      std::fill_n(argument.begin(), bytes, std::byte{0});
      EXPECT_EQ(call(command_of(number, bytes), argument.data()), row.zeros)
          << row.name << " of " << bytes << " bytes";
      for (std::size_t i = bytes; i < argument.size(); ++i) ASSERT_EQ(argument[i], guard);
    }
  }
}

TEST_F(KfdsimIoctl, PointersInArgumentsThatLeadNowhereAreEfault) {
  constexpr std::uint64_t nowhere = 8;
  kfd_ioctl_wait_events_args wait{};
  wait.num_events = 1;
  wait.events_ptr = nowhere;
  EXPECT_EQ(call(AMDKFD_IOC_WAIT_EVENTS, wait), EFAULT);
  kfd_ioctl_get_process_apertures_new_args apertures{};
  apertures.num_of_nodes = 1;
  apertures.kfd_process_device_apertures_ptr = nowhere;
  EXPECT_EQ(call(AMDKFD_IOC_GET_PROCESS_APERTURES_NEW, apertures), EFAULT);
  kfd_ioctl_get_tile_config_args tiles{};
  tiles.gpu_id = gpu_id;
  tiles.num_tile_configs = 1000;
  tiles.tile_config_ptr = nowhere;
  EXPECT_EQ(call(AMDKFD_IOC_GET_TILE_CONFIG, tiles), EFAULT);
  kfd_ioctl_map_memory_to_gpu_args map{};
  map.n_devices = 1;
  map.device_ids_array_ptr = nowhere;
  EXPECT_EQ(call(AMDKFD_IOC_MAP_MEMORY_TO_GPU, map), EFAULT);
  EXPECT_EQ(call(AMDKFD_IOC_UNMAP_MEMORY_FROM_GPU, map), EFAULT);
  kfd_ioctl_set_cu_mask_args mask{};
  mask.num_cu_mask = 64;
  mask.cu_mask_ptr = nowhere;
  EXPECT_EQ(call(AMDKFD_IOC_SET_CU_MASK, mask), EFAULT);
  kfd_ioctl_create_queue_args queue{};
  queue.gpu_id = gpu_id;
  queue.queue_type = KFD_IOC_QUEUE_TYPE_COMPUTE_AQL;
  for (auto field : {&kfd_ioctl_create_queue_args::ring_base_address,
                     &kfd_ioctl_create_queue_args::read_pointer_address,
                     &kfd_ioctl_create_queue_args::write_pointer_address,
                     &kfd_ioctl_create_queue_args::eop_buffer_address,
                     &kfd_ioctl_create_queue_args::ctx_save_restore_address}) {
    auto bad = queue;
    bad.*field = 0xffff800000000000;  // the kernel's
    EXPECT_EQ(call(AMDKFD_IOC_CREATE_QUEUE, bad), EFAULT);
  }
}

TEST_F(KfdsimIoctl, TileConfigurationIsClamped) {
  std::array<std::uint32_t, 64> tiles{};
  tiles.fill(7);
  kfd_ioctl_get_tile_config_args arguments{};
  arguments.gpu_id = gpu_id;
  arguments.num_tile_configs = 64;
  arguments.tile_config_ptr = reinterpret_cast<std::uint64_t>(tiles.data());
  EXPECT_EQ(call(AMDKFD_IOC_GET_TILE_CONFIG, arguments), 0);
  EXPECT_EQ(arguments.num_tile_configs, 32U);
  EXPECT_EQ(tiles[31], 0U);
  EXPECT_EQ(tiles[32], 7U);
}

TEST_F(KfdsimIoctl, GlobalWaveSyncIsOneQueuesOfAProcess) {
  GpuQueue first;
  GpuQueue second;
  kfd_ioctl_alloc_queue_gws_args arguments{};
  // libhsakmt's id is a pointer; the driver's ids count from 0.
  arguments.queue_id = 0;
  EXPECT_EQ(call(AMDKFD_IOC_ALLOC_QUEUE_GWS, arguments), EINVAL) << "nothing to take away";
  arguments.num_gws = 64;
  EXPECT_EQ(call(AMDKFD_IOC_ALLOC_QUEUE_GWS, arguments), 0);
  arguments.queue_id = 1;
  EXPECT_EQ(call(AMDKFD_IOC_ALLOC_QUEUE_GWS, arguments), EBUSY);
  arguments.queue_id = 0;
  arguments.num_gws = 0;
  EXPECT_EQ(call(AMDKFD_IOC_ALLOC_QUEUE_GWS, arguments), 0);
}

TEST_F(KfdsimIoctl, WaveStateIsOfIdleQueuesOnly) {
  GpuQueue queue;
  kfd_ioctl_get_queue_wave_state_args arguments{};
  EXPECT_EQ(call(AMDKFD_IOC_GET_QUEUE_WAVE_STATE, arguments), EINVAL) << "active";
  kfd_ioctl_update_queue_args update{};
  update.ring_base_address = 4096;
  EXPECT_EQ(call(AMDKFD_IOC_UPDATE_QUEUE, update), 0);
  arguments.ctl_stack_used_size = 99;
  EXPECT_EQ(call(AMDKFD_IOC_GET_QUEUE_WAVE_STATE, arguments), 0);
  EXPECT_EQ(arguments.ctl_stack_used_size, 0U);
}

TEST_F(KfdsimIoctl, SmiEventsAndXgmiQueuesFailAsWhenTheDriverHasNone) {
  kfd_ioctl_smi_events_args watch{};
  watch.gpuid = gpu_id;
  EXPECT_EQ(call(AMDKFD_IOC_SMI_EVENTS, watch), ENOMEM);
  kfd_ioctl_create_queue_args queue{};
  queue.gpu_id = gpu_id;
  queue.queue_type = KFD_IOC_QUEUE_TYPE_SDMA_XGMI;
  EXPECT_EQ(call(AMDKFD_IOC_CREATE_QUEUE, queue), ENOMEM);
}

TEST_F(KfdsimIoctl, TheEventPageIsGivenOnceAndStays) {
  kfd_ioctl_alloc_memory_of_gpu_args memory{};
  memory.gpu_id = gpu_id;
  memory.va_addr = 1ULL << 40;
  memory.size = 32768;
  memory.flags = KFD_IOC_ALLOC_MEM_FLAGS_GTT;
  ASSERT_EQ(call(AMDKFD_IOC_ALLOC_MEMORY_OF_GPU, memory), 0);
  // libhsakmt gives its page with its first event.
  HsaEventDescriptor description{};
  description.EventType = HSA_EVENTTYPE_SIGNAL;
  HsaEvent* event = nullptr;
  ASSERT_EQ(hsaKmtCreateEvent(&description, false, false, &event), HSAKMT_STATUS_SUCCESS);
  kfd_ioctl_create_event_args again{};
  again.event_page_offset = memory.handle;
  EXPECT_EQ(call(AMDKFD_IOC_CREATE_EVENT, again), EINVAL);
  kfd_ioctl_free_memory_of_gpu_args free{memory.handle};
  EXPECT_EQ(call(AMDKFD_IOC_FREE_MEMORY_OF_GPU, free), 0) << "it did not become the page";
  hsaKmtDestroyEvent(event);
  bool refused = false;
  for (std::uint32_t id = 1; id < 4096; ++id) {
    kfd_ioctl_free_memory_of_gpu_args page{std::uint64_t{gpu_id} << 32 | id};
    // All of libhsakmt's other memory is mapped on the GPU.
    refused = refused || call(AMDKFD_IOC_FREE_MEMORY_OF_GPU, page) == EPERM;
  }
  EXPECT_TRUE(refused);
}

TEST_F(KfdsimIoctl, ASecondOpenOfTheRenderNodeIsBusy) {
  const int render = ::open("/dev/dri/renderD128", O_RDWR | O_CLOEXEC);
  ASSERT_GE(render, 0);
  kfd_ioctl_acquire_vm_args arguments{static_cast<std::uint32_t>(render), gpu_id};
  EXPECT_EQ(call(AMDKFD_IOC_ACQUIRE_VM, arguments), EBUSY);
  ::close(render);
}

/// What a process gets that has opened /dev/kfd but has no address space on the GPU: a bit set of
/// the commands whose errno was not the expected one.
int without_an_address_space() {
  const int kfd = ::open("/dev/kfd", O_RDWR | O_CLOEXEC);
  if (kfd < 0) return 1;
  int wrong = 0;
  const auto expect = [&](unsigned long command, auto arguments, int expected, int bit) {
    const int error = ::ioctl(kfd, command, &arguments) == 0 ? 0 : errno;
    if (error != expected) wrong |= 1 << bit;
  };
  kfd_ioctl_create_queue_args queue{};
  queue.gpu_id = gpu_id;
  expect(AMDKFD_IOC_CREATE_QUEUE, queue, ESRCH, 1);
  kfd_ioctl_set_memory_policy_args policy{};
  policy.gpu_id = gpu_id;
  expect(AMDKFD_IOC_SET_MEMORY_POLICY, policy, ESRCH, 2);
  kfd_ioctl_set_trap_handler_args trap{};
  trap.gpu_id = gpu_id;
  expect(AMDKFD_IOC_SET_TRAP_HANDLER, trap, ESRCH, 3);
  kfd_ioctl_set_scratch_backing_va_args scratch{};
  scratch.gpu_id = gpu_id;
  expect(AMDKFD_IOC_SET_SCRATCH_BACKING_VA, scratch, ENODEV, 4);
  kfd_ioctl_alloc_memory_of_gpu_args memory{};
  memory.gpu_id = gpu_id;
  memory.size = 4096;
  memory.flags = KFD_IOC_ALLOC_MEM_FLAGS_GTT;
  expect(AMDKFD_IOC_ALLOC_MEMORY_OF_GPU, memory, ENODEV, 5);
  return wrong;
}

TEST_F(KfdsimIoctl, WithoutAnAddressSpaceThereIsNoDevice) {
  const pid_t child = ::fork();
  if (child == 0) ::_exit(without_an_address_space());
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0) << std::hex << WEXITSTATUS(status);
}

TEST(KfdsimIoctlTable, IsTheDocumentsToo) {
  std::ifstream file(ECLIP_SOURCE_DIR "/docs/kfdsim.md");
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  ASSERT_FALSE(text.empty());
  for (const auto& [number, row] : rows()) {
    std::array<char, 80> line{};
    std::snprintf(line.data(), line.size(), "\n| 0x%02x | %s |", number, row.name);
    EXPECT_NE(text.find(line.data()), std::string::npos) << line.data();
  }
}

}  // namespace
}  // namespace eclip::test
