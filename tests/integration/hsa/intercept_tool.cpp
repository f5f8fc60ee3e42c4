// A tools library (HSA_TOOLS_LIB) for the tests: intercepts the queues that the program creates,
// counts their packets and, when ECLIP_TEST_REDIRECT is set, sends each kernel to a second queue
// that has 15 CUs, with barriers on both sides.
#include <hsa/hsa.h>
#include <hsa/hsa_api_trace.h>
#include <hsa/hsa_ext_amd.h>

#include <array>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <map>
#include <memory>
#include <mutex>
#include <vector>

#include "tests/integration/hsa/intercept_tool.h"

namespace {

// The runtime's own functions, from before the table was changed.
CoreApiTable core;
AmdExtTable amd;
eclip::test::InterceptCounts counts;

using Packet = std::array<std::byte, 64>;

std::uint16_t header_of(std::uint16_t type) {
  return static_cast<std::uint16_t>(
      type | 1U << HSA_PACKET_HEADER_BARRIER |
      HSA_FENCE_SCOPE_SYSTEM << HSA_PACKET_HEADER_SCACQUIRE_FENCE_SCOPE |
      HSA_FENCE_SCOPE_SYSTEM << HSA_PACKET_HEADER_SCRELEASE_FENCE_SCOPE);
}

Packet barrier(hsa_signal_t waits_for, hsa_signal_t completes) {
  hsa_barrier_and_packet_t packet{};
  packet.header = header_of(HSA_PACKET_TYPE_BARRIER_AND);
  packet.dep_signal[0] = waits_for;
  packet.completion_signal = completes;
  Packet bytes{};
  std::memcpy(bytes.data(), &packet, sizeof packet);
  return bytes;
}

std::uint8_t type_of(const Packet& packet) {
  std::uint16_t header = 0;
  std::memcpy(&header, packet.data(), sizeof header);
  return static_cast<std::uint8_t>(header);
}

/// A user's queue, and the masked one that runs its kernels.
struct Redirected {
  hsa_queue_t* masked = nullptr;
  // In pairs; they live as long as the queue. (A tool for more than tests would use them again.)
  std::vector<hsa_signal_t> signals;
  std::mutex mutex;

  hsa_signal_t new_signal() {
    hsa_signal_t signal{};
    core.hsa_signal_create_fn(1, 0, nullptr, &signal);
    signals.push_back(signal);
    return signal;
  }
  void write(const std::vector<Packet>& packets) const {
    const auto count = static_cast<std::uint64_t>(packets.size());
    const std::uint64_t first = core.hsa_queue_add_write_index_screlease_fn(masked, count);
    for (std::uint64_t i = 0; i < count; ++i) {
      while (first + i - core.hsa_queue_load_read_index_scacquire_fn(masked) >= masked->size) {
        const timespec pause{0, 20'000};
        ::nanosleep(&pause, nullptr);
      }
      auto* place = static_cast<std::byte*>(masked->base_address) + (first + i) % masked->size * 64;
      std::memcpy(place + 2, packets[i].data() + 2, sizeof(Packet) - 2);
      std::uint16_t header = 0;
      std::memcpy(&header, packets[i].data(), sizeof header);
      __atomic_store_n(reinterpret_cast<std::uint16_t*>(place), header, __ATOMIC_RELEASE);
    }
    core.hsa_signal_store_screlease_fn(masked->doorbell_signal,
                                       static_cast<hsa_signal_value_t>(first + count - 1));
  }
};

std::mutex queues_mutex;
std::map<const hsa_queue_t*, std::unique_ptr<Redirected>> queues;

/// The packets that the user's queue gets instead. The kernels go to the masked queue.
std::vector<Packet> redirect(Redirected& queue, const Packet* packets, std::uint64_t count) {
  std::vector<Packet> remaining;
  std::vector<Packet> moved;
  const std::lock_guard lock(queue.mutex);
  for (std::uint64_t i = 0; i < count; ++i) {
    if (type_of(packets[i]) != HSA_PACKET_TYPE_KERNEL_DISPATCH) {
      remaining.push_back(packets[i]);
      continue;
    }
    const hsa_signal_t reached = queue.new_signal();
    const hsa_signal_t ended = queue.new_signal();
    remaining.push_back(barrier({0}, reached));
    remaining.push_back(barrier(ended, {0}));
    moved.push_back(barrier(reached, {0}));
    moved.push_back(packets[i]);
    moved.push_back(barrier({0}, ended));
    ++counts.redirected;
  }
  if (!moved.empty()) queue.write(moved);
  return remaining;
}

void on_packets(const void* raw, std::uint64_t count, std::uint64_t, void* data,
                hsa_amd_queue_intercept_packet_writer writer) {
  counts.packets += count;
  const auto* packets = static_cast<const Packet*>(raw);
  if (data == nullptr) {
    writer(packets, count);
    return;
  }
  const auto rewritten = redirect(*static_cast<Redirected*>(data), packets, count);
  // Once for each callback: the runtime does not survive a second call.
  writer(rewritten.data(), rewritten.size());
}

hsa_status_t create_queue(hsa_agent_t agent, std::uint32_t size, hsa_queue_type32_t type,
                          void (*callback)(hsa_status_t, hsa_queue_t*, void*), void* data,
                          std::uint32_t private_bytes, std::uint32_t group_bytes,
                          hsa_queue_t** queue) {
  const hsa_status_t created = amd.hsa_amd_queue_intercept_create_fn(
      agent, size, type, callback, data, private_bytes, group_bytes, queue);
  if (created != HSA_STATUS_SUCCESS) return created;
  ++counts.queues;
  std::unique_ptr<Redirected> redirected;
  if (std::getenv("ECLIP_TEST_REDIRECT") != nullptr) {
    redirected = std::make_unique<Redirected>();
    const hsa_status_t second =
        core.hsa_queue_create_fn(agent, size, HSA_QUEUE_TYPE_MULTI, nullptr, nullptr, private_bytes,
                                 group_bytes, &redirected->masked);
    if (second != HSA_STATUS_SUCCESS) return second;
    const std::array<std::uint32_t, 2> mask{0x7fff, 0};
    amd.hsa_amd_queue_cu_set_mask_fn(redirected->masked, 64, mask.data());
  }
  const hsa_status_t registered =
      amd.hsa_amd_queue_intercept_register_fn(*queue, on_packets, redirected.get());
  const std::lock_guard lock(queues_mutex);
  queues[*queue] = std::move(redirected);
  return registered;
}

hsa_status_t destroy_queue(hsa_queue_t* queue) {
  const hsa_status_t destroyed = core.hsa_queue_destroy_fn(queue);
  const std::lock_guard lock(queues_mutex);
  const auto found = queues.find(queue);
  if (found == queues.end()) return destroyed;
  if (found->second != nullptr) {
    core.hsa_queue_destroy_fn(found->second->masked);
    for (const hsa_signal_t signal : found->second->signals) core.hsa_signal_destroy_fn(signal);
  }
  queues.erase(found);
  return destroyed;
}

}  // namespace

extern "C" __attribute__((visibility("default"))) bool OnLoad(HsaApiTable* table, std::uint64_t,
                                                              std::uint64_t, const char* const*) {
  std::memcpy(&core, table->core_, sizeof core);
  std::memcpy(&amd, table->amd_ext_, sizeof amd);
  table->core_->hsa_queue_create_fn = create_queue;
  table->core_->hsa_queue_destroy_fn = destroy_queue;
  return true;
}

extern "C" __attribute__((visibility("default"))) void OnUnload() {}

extern "C" __attribute__((visibility("default"))) const eclip::test::InterceptCounts*
eclip_test_intercept_counts() {
  return &counts;
}
