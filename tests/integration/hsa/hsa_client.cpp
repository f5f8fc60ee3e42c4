#include "tests/integration/hsa/hsa_client.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <string>

namespace eclip::test {
namespace {

constexpr std::uint64_t deadline_seconds = 30;
constexpr std::uint32_t workgroup_size = 256;
constexpr std::uint32_t workgroups = 1200;

hsa_status_t note_agent(hsa_agent_t agent, void* data) {
  auto* hsa = static_cast<Hsa*>(data);
  hsa_device_type_t type{};
  check(hsa_agent_get_info(agent, HSA_AGENT_INFO_DEVICE, &type));
  (type == HSA_DEVICE_TYPE_GPU ? hsa->gpu : hsa->cpu) = agent;
  return HSA_STATUS_SUCCESS;
}

struct PoolSearch {
  std::uint32_t flag;
  hsa_amd_memory_pool_t found;
};

hsa_status_t note_pool(hsa_amd_memory_pool_t pool, void* data) {
  auto* search = static_cast<PoolSearch*>(data);
  hsa_amd_segment_t segment{};
  check(hsa_amd_memory_pool_get_info(pool, HSA_AMD_MEMORY_POOL_INFO_SEGMENT, &segment));
  if (segment != HSA_AMD_SEGMENT_GLOBAL) return HSA_STATUS_SUCCESS;
  std::uint32_t flags = 0;
  check(hsa_amd_memory_pool_get_info(pool, HSA_AMD_MEMORY_POOL_INFO_GLOBAL_FLAGS, &flags));
  if ((flags & search->flag) != 0) search->found = pool;
  return HSA_STATUS_SUCCESS;
}

hsa_amd_memory_pool_t pool_of(hsa_agent_t agent, std::uint32_t flag) {
  PoolSearch search{flag, {}};
  check(hsa_amd_agent_iterate_memory_pools(agent, note_pool, &search));
  if (search.found.handle == 0) throw std::runtime_error("an agent lacks a memory pool");
  return search.found;
}

replay::ReplayImage image_of(const std::vector<replay::ReplayKernel>& kernels) {
  auto image = replay::build_replay_image(kernels);
  if (!image) throw std::runtime_error(image.error().message());
  return std::move(*image);
}

std::uint16_t header_of(std::uint16_t type, bool barrier_bit) {
  constexpr std::uint16_t fences =
      HSA_FENCE_SCOPE_SYSTEM << HSA_PACKET_HEADER_SCACQUIRE_FENCE_SCOPE |
      HSA_FENCE_SCOPE_SYSTEM << HSA_PACKET_HEADER_SCRELEASE_FENCE_SCOPE;
  const auto barrier =
      static_cast<std::uint16_t>((barrier_bit ? 1U : 0U) << HSA_PACKET_HEADER_BARRIER);
  return static_cast<std::uint16_t>(type | fences | barrier);
}

}  // namespace

void check(hsa_status_t status, const char* file, int line) {
  if (status == HSA_STATUS_SUCCESS) return;
  const char* text = nullptr;
  hsa_status_string(status, &text);
  throw std::runtime_error(std::string(file) + ":" + std::to_string(line) + ": " +
                           (text == nullptr ? "unknown HSA status" : text));
}

Hsa::Hsa() {
  check(hsa_init());
  check(hsa_iterate_agents(note_agent, this));
  if (gpu.handle == 0) throw std::runtime_error("no GPU agent");
  vram = pool_of(gpu, HSA_AMD_MEMORY_POOL_GLOBAL_FLAG_COARSE_GRAINED);
  system = pool_of(cpu, HSA_AMD_MEMORY_POOL_GLOBAL_FLAG_FINE_GRAINED);
}

Hsa::~Hsa() {
  hsa_shut_down();
}

HsaMemory::HsaMemory(const Hsa& hsa, hsa_amd_memory_pool_t pool, std::size_t bytes)
    : bytes_(bytes) {
  check(hsa_amd_memory_pool_allocate(pool, bytes, 0, &memory_));
  if (pool.handle == hsa.system.handle) {
    check(hsa_amd_agents_allow_access(1, &hsa.gpu, nullptr, memory_));
  }
}

HsaSignal::HsaSignal(hsa_signal_value_t value) {
  check(hsa_signal_create(value, 0, nullptr, &signal_));
}

bool HsaSignal::wait(hsa_wait_state_t how) const {
  return hsa_signal_wait_scacquire(signal_, HSA_SIGNAL_CONDITION_LT, 1, wait_deadline(), how) < 1;
}

std::uint64_t wait_deadline() {
  std::uint64_t hertz = 0;
  check(hsa_system_get_info(HSA_SYSTEM_INFO_TIMESTAMP_FREQUENCY, &hertz));
  return hertz * deadline_seconds;
}

HsaQueue::HsaQueue(const Hsa& hsa, std::uint32_t packets) {
  check(hsa_queue_create(hsa.gpu, packets, HSA_QUEUE_TYPE_SINGLE, nullptr, nullptr, UINT32_MAX,
                         UINT32_MAX, &queue_));
}

HsaQueue::~HsaQueue() {
  if (queue_ != nullptr) hsa_queue_destroy(queue_);
}

void HsaQueue::destroy() {
  check(hsa_queue_destroy(queue_));
  queue_ = nullptr;
}

void HsaQueue::set_cu_mask(std::uint64_t mask) const {
  const std::array words{static_cast<std::uint32_t>(mask), static_cast<std::uint32_t>(mask >> 32)};
  check(hsa_amd_queue_cu_set_mask(queue_, 64, words.data()));
}

void HsaQueue::submit(const void* packet, std::uint16_t header) const {
  const std::uint64_t index = hsa_queue_add_write_index_screlease(queue_, 1);
  while (index - hsa_queue_load_read_index_scacquire(queue_) >= queue_->size) {
    const timespec pause{0, 20'000};
    ::nanosleep(&pause, nullptr);
  }
  auto* place = static_cast<std::byte*>(queue_->base_address) + index % queue_->size * 64;
  std::memcpy(place + sizeof header, static_cast<const std::byte*>(packet) + sizeof header,
              64 - sizeof header);
  __atomic_store_n(reinterpret_cast<std::uint16_t*>(place), header, __ATOMIC_RELEASE);
  hsa_signal_store_screlease(queue_->doorbell_signal, static_cast<hsa_signal_value_t>(index));
}

void HsaQueue::dispatch(std::uint64_t kernel_object, const HsaSignal* done, void* kernarg,
                        bool barrier_bit) const {
  hsa_kernel_dispatch_packet_t packet{};
  packet.setup = 1;
  packet.workgroup_size_x = workgroup_size;
  packet.workgroup_size_y = 1;
  packet.workgroup_size_z = 1;
  packet.grid_size_x = workgroup_size * workgroups;
  packet.grid_size_y = 1;
  packet.grid_size_z = 1;
  packet.kernel_object = kernel_object;
  packet.kernarg_address = kernarg;
  if (done != nullptr) packet.completion_signal = done->get();
  submit(&packet, header_of(HSA_PACKET_TYPE_KERNEL_DISPATCH, barrier_bit));
}

void HsaQueue::barrier(bool any, std::span<const hsa_signal_t> dependencies, const HsaSignal* done,
                       bool barrier_bit) const {
  hsa_barrier_and_packet_t packet{};
  std::copy(dependencies.begin(), dependencies.end(), packet.dep_signal);
  if (done != nullptr) packet.completion_signal = done->get();
  submit(&packet,
         header_of(any ? HSA_PACKET_TYPE_BARRIER_OR : HSA_PACKET_TYPE_BARRIER_AND, barrier_bit));
}

HsaKernels::HsaKernels(const Hsa& hsa, const std::vector<replay::ReplayKernel>& kernels)
    : image_(image_of(kernels)), memory_(hsa, hsa.system, image_.bytes.size()) {
  std::memcpy(memory_.at(), image_.bytes.data(), image_.bytes.size());
}

std::uint64_t HsaKernels::object(std::size_t index) const {
  return reinterpret_cast<std::uint64_t>(memory_.at(image_.kernel_offsets.at(index)));
}

replay::ReplayKernel replay_kernel(double us_on_15_cus, double us_on_60_cus, bool mixes) {
  replay::ReplayKernel kernel;
  kernel.shape.workgroups = workgroups;
  kernel.shape.workgroup_size = workgroup_size;
  kernel.points = {{15, us_on_15_cus}, {60, us_on_60_cus}};
  kernel.mixes = mixes;
  return kernel;
}

MixWords::MixWords(const Hsa& hsa, std::size_t count)
    : count_(count),
      words_(hsa, hsa.system, (count + 1) * sizeof(std::uint64_t)),
      arguments_(hsa, hsa.system, count * sizeof(replay::MixKernarg)) {
  std::memset(words_.at(), 0, words_.bytes());
  words_.as<std::uint64_t>()[0] = 1;
  const auto word = [&](std::size_t i) {
    return reinterpret_cast<std::uint64_t>(words_.at(i * sizeof(std::uint64_t)));
  };
  for (std::size_t i = 0; i < count; ++i) {
    replay::MixKernarg& one = arguments_.as<replay::MixKernarg>()[i];
    one = {word(i + 1), static_cast<std::uint32_t>(i), 1, {}};
    one.inputs[0] = word(i);
  }
}

void* MixWords::kernarg(std::size_t index) const {
  return arguments_.at(index * sizeof(replay::MixKernarg));
}

std::uint64_t MixWords::expected() const {
  std::uint64_t value = 1;
  for (std::uint32_t i = 0; i < count_; ++i) value = replay::mix(i, {&value, 1});
  return value;
}

std::vector<std::uint8_t> random_bytes(std::size_t bytes, std::uint32_t seed) {
  std::vector<std::uint8_t> values(bytes);
  std::uint32_t state = seed * 2654435761U + 1;
  for (std::uint8_t& value : values) {
    state = state * 1664525U + 1013904223U;
    value = static_cast<std::uint8_t>(state >> 24);
  }
  return values;
}

}  // namespace eclip::test
