// The producer's end of an AQL queue: packets, write index, doorbell.
#pragma once

#include <hsa/hsa.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

namespace eclip::daemon {

/// A 64-byte AQL packet of any type. `header` holds the header (low half) and what follows it
/// (setup of a dispatch), which are stored last, at once.
struct alignas(64) AqlPacket {
  std::atomic<std::uint32_t> header;
  std::uint32_t body[15];
};
static_assert(sizeof(AqlPacket) == sizeof(hsa_kernel_dispatch_packet_t));
static_assert(sizeof(AqlPacket) == sizeof(hsa_barrier_and_packet_t));

inline constexpr std::uint32_t aql_invalid_header = HSA_PACKET_TYPE_INVALID
                                                    << HSA_PACKET_HEADER_TYPE;

/// A packet that is ready to be copied into a queue.
union AqlImage {
  hsa_kernel_dispatch_packet_t dispatch;
  hsa_barrier_and_packet_t barrier;  ///< barrier-OR has the same layout
};

/// Single producer. The packet processor, which is the hardware, consumes.
class AqlRing {
 public:
  /// `slots`: a power of two. The indices and the doorbell are the hardware queue's own words.
  AqlRing(std::span<AqlPacket> slots, volatile std::uint64_t& write_index,
          const volatile std::uint64_t& read_index, volatile std::uint64_t& doorbell)
      : slots_(slots), write_index_(&write_index), read_index_(&read_index), doorbell_(&doorbell) {}

  [[nodiscard]] bool full() const {
    // The packet processor's index is in a cache line that it keeps writing: looked at only when
    // what is known of it does not do.
    if (next_ - known_read_ < slots_.size()) return false;
    known_read_ = read();
    return next_ - known_read_ >= slots_.size();
  }
  [[nodiscard]] std::size_t size() const { return slots_.size(); }
  /// Packets that the packet processor is past; they may still run.
  [[nodiscard]] std::uint64_t processed() const { return read(); }
  /// Number of the next packet to be pushed.
  [[nodiscard]] std::uint64_t next() const { return next_; }
  /// True when the packet processor is past packet `number`.
  [[nodiscard]] bool consumed(std::uint64_t number) const { return read() > number; }

  /// Copies a packet into the queue, which must not be full. The doorbell rings later.
  void push(const AqlImage& image) {
    AqlPacket& slot = slots_[next_ & (slots_.size() - 1)];
    std::uint32_t first_word = 0;
    std::memcpy(&first_word, &image, sizeof first_word);
    std::memcpy(slot.body, reinterpret_cast<const char*>(&image) + sizeof first_word,
                sizeof slot.body);
    slot.header.store(first_word, std::memory_order_release);
    ++next_;
  }
  /// Gives the packet pushed last a completion signal. Before the doorbell rings for it.
  void set_completion_of_last(std::uint64_t signal_address) {
    static_assert(offsetof(hsa_kernel_dispatch_packet_t, completion_signal) == 56 &&
                  offsetof(hsa_barrier_and_packet_t, completion_signal) == 56);
    std::memcpy(&slots_[(next_ - 1) & (slots_.size() - 1)].body[13], &signal_address,
                sizeof signal_address);
  }
  /// Tells the packet processor of all packets pushed since.
  void ring_doorbell() {
    __atomic_store_n(write_index_, next_, __ATOMIC_RELEASE);
    __atomic_store_n(doorbell_, next_ - 1, __ATOMIC_RELEASE);
  }

 private:
  [[nodiscard]] std::uint64_t read() const {
    return __atomic_load_n(read_index_, __ATOMIC_ACQUIRE);
  }

  std::span<AqlPacket> slots_;
  volatile std::uint64_t* write_index_;
  const volatile std::uint64_t* read_index_;
  volatile std::uint64_t* doorbell_;
  std::uint64_t next_ = 0;
  mutable std::uint64_t known_read_ = 0;
};

}  // namespace eclip::daemon
