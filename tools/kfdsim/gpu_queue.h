// A queue that a client process created, and the packets of it that the GPU has taken.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <variant>
#include <vector>

#include "daemon/model/device.h"
#include "ipc/cu_mask.h"
#include "tools/kfdsim/aql_packet.h"
#include "tools/kfdsim/backing_memory.h"
#include "tools/kfdsim/fault_injector.h"
#include "tools/kfdsim/gpu_memory.h"
#include "tools/kfdsim/kernel_cache.h"
#include "tools/kfdsim/ring_settings.h"
#include "tools/kfdsim/sdma_queue.h"

namespace eclip::kfdsim {

struct GpuContext;

/// What the KFD calls the queue's type.
enum class QueueType : std::uint8_t {
  aql,
  sdma,
  pm4,  ///< exists, but its packets are never processed
};

/// A packet between its fetch and its completion.
struct InFlightPacket {
  std::shared_ptr<const std::string> name;
  std::uint64_t completion_signal = 0;
  std::uint64_t workgroups = 0;
  BarrierPacket barrier;
  bool is_dispatch = false;
  DispatchPacket dispatch;           ///< of a dispatch
  DispatchedKernel kernel;           ///< of a dispatch
  std::vector<std::byte> arguments;  ///< as they were at the start, where the shadow needs that
  std::uint64_t output_address = 0;  ///< of a mixing kernel, known once it has started
  std::uint64_t output = 0;
  std::shared_ptr<const std::string> mask;  ///< that it started with
};

/// A packet that was fetched from the ring.
struct FetchedPacket {
  std::uint64_t index;
  AqlPacket packet;
};

class GpuQueue {
 public:
  static constexpr std::uint32_t doorbell_count = BackingMemory::doorbell_bytes / 8;

  GpuQueue(GpuContext& context, std::uint32_t id, std::uint32_t doorbell, QueueType type,
           RingSettings ring);

  /// The next packet that the client has written and announced; nullopt when there is none. Marks
  /// its place in the ring as free to be written, which the client knows from the read pointer.
  std::variant<std::optional<FetchedPacket>, QueueFault> fetch();
  /// Tells the client that the packet at `index` was taken; false when the read pointer is not
  /// mapped.
  bool publish_taken(std::uint64_t index);
  /// The value of the doorbell: of an SDMA queue, the number of bytes written to its ring so far.
  [[nodiscard]] std::uint64_t doorbell_value() const { return read_doorbell(); }
  /// Whether the doorbell was rung since the last call.
  bool doorbell_moved();

  GpuContext& context;
  const std::uint32_t id;
  const std::uint32_t doorbell;
  const QueueType type;
  RingSettings ring;
  std::optional<SdmaQueue> sdma;      ///< of a queue of that type
  std::uint64_t announced_bytes = 0;  ///< of an SDMA queue: its doorbell at the last look
  /// In the model; none for queues that only exist.
  std::optional<model::QueueId> model_id;
  std::shared_ptr<const std::string> mask;
  bool mask_is_empty = false;  ///< no CU is reachable: as on hardware, the queue hangs
  bool failed = false;         ///< stopped by a fault until it is destroyed
  /// Injected: it takes no packet after so many.
  std::optional<FaultInjector::Hang> hang;
  bool hung = false;  ///< a packet waits that it will not take
  bool hang_counted = false;
  /// Found when a packet was fetched; reported once the packets before it have completed.
  std::optional<QueueFault> fault_when_drained;
  std::unordered_map<std::uint64_t, InFlightPacket> in_flight;  // by packet index

 private:
  [[nodiscard]] std::uint64_t read_doorbell() const;

  std::uint64_t next_ = 0;       // index of the next packet to fetch
  std::uint64_t announced_ = 0;  // packets below this index may be fetched
  std::uint64_t last_doorbell_;
};

}  // namespace eclip::kfdsim
