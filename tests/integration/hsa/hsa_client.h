// A small user of the HSA runtime for the tests: agents, memory, signals, queues. Each failing call
// throws, with its place; GoogleTest turns that into a failure.
#pragma once

#include <hsa/hsa.h>
#include <hsa/hsa_ext_amd.h>

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "tools/replay/replay_kernel.h"

namespace eclip::test {

/// Throws unless the status is success.
void check(hsa_status_t status, const char* file = __builtin_FILE(), int line = __builtin_LINE());

/// The runtime from hsa_init to hsa_shut_down, with the agents and pools of the machine.
class Hsa {
 public:
  Hsa();
  ~Hsa();
  Hsa(const Hsa&) = delete;
  Hsa& operator=(const Hsa&) = delete;

  hsa_agent_t gpu{};
  hsa_agent_t cpu{};
  hsa_amd_memory_pool_t vram{};
  hsa_amd_memory_pool_t system{};  ///< fine grained
};

/// Memory that both agents can reach as far as the pool lets them.
class HsaMemory {
 public:
  HsaMemory(const Hsa& hsa, hsa_amd_memory_pool_t pool, std::size_t bytes);
  ~HsaMemory() { hsa_amd_memory_pool_free(memory_); }
  HsaMemory(const HsaMemory&) = delete;
  HsaMemory& operator=(const HsaMemory&) = delete;

  [[nodiscard]] std::byte* at(std::size_t offset = 0) const {
    return static_cast<std::byte*>(memory_) + offset;
  }
  template <class T>
  [[nodiscard]] T* as(std::size_t offset = 0) const {
    return reinterpret_cast<T*>(at(offset));
  }
  [[nodiscard]] std::size_t bytes() const { return bytes_; }
  [[nodiscard]] std::span<std::uint8_t> span() const { return {as<std::uint8_t>(), bytes_}; }

 private:
  void* memory_ = nullptr;
  std::size_t bytes_;
};

class HsaSignal {
 public:
  explicit HsaSignal(hsa_signal_value_t value = 1);
  ~HsaSignal() { hsa_signal_destroy(signal_); }
  HsaSignal(const HsaSignal&) = delete;
  HsaSignal& operator=(const HsaSignal&) = delete;

  [[nodiscard]] hsa_signal_t get() const { return signal_; }
  [[nodiscard]] hsa_signal_value_t value() const { return hsa_signal_load_scacquire(signal_); }
  void set(hsa_signal_value_t value) const { hsa_signal_store_screlease(signal_, value); }
  /// Whether the signal fell below 1 before the deadline.
  [[nodiscard]] bool wait(hsa_wait_state_t how = HSA_WAIT_STATE_BLOCKED) const;

 private:
  hsa_signal_t signal_{};
};

/// Seconds of the system's clock that a wait may take, in ticks of hsa_signal_wait's timeout.
std::uint64_t wait_deadline();

/// An AQL queue; packets are written by one thread at a time.
class HsaQueue {
 public:
  explicit HsaQueue(const Hsa& hsa, std::uint32_t packets = 256);
  ~HsaQueue();
  HsaQueue(const HsaQueue&) = delete;
  HsaQueue& operator=(const HsaQueue&) = delete;

  [[nodiscard]] hsa_queue_t* get() const { return queue_; }
  void destroy();  ///< before the object's end
  /// Sets the mask of the queue; bit i is CU i, as the KFD counts.
  void set_cu_mask(std::uint64_t mask) const;

  void dispatch(std::uint64_t kernel_object, const HsaSignal* done, void* kernarg = nullptr,
                bool barrier_bit = true) const;
  void barrier(bool any, std::span<const hsa_signal_t> dependencies, const HsaSignal* done,
               bool barrier_bit = true) const;

 private:
  void submit(const void* packet, std::uint16_t header) const;

  hsa_queue_t* queue_ = nullptr;
};

/// Replay kernels in the GPU's reach.
class HsaKernels {
 public:
  HsaKernels(const Hsa& hsa, const std::vector<replay::ReplayKernel>& kernels);
  [[nodiscard]] std::uint64_t object(std::size_t index = 0) const;

 private:
  replay::ReplayImage image_;
  HsaMemory memory_;
};

/// A kernel of 1200 workgroups of 256 with t(c) in two points, 15 and 60 CUs.
replay::ReplayKernel replay_kernel(double us_on_15_cus, double us_on_60_cus, bool mixes = false);

/// Mixing kernels one after another: kernel i of `count` reads word i and writes word i + 1, so
/// that the last word tells whether all of them ran in order.
class MixWords {
 public:
  MixWords(const Hsa& hsa, std::size_t count);
  [[nodiscard]] void* kernarg(std::size_t index) const;
  [[nodiscard]] std::uint64_t last() const { return words_.as<std::uint64_t>()[count_]; }
  [[nodiscard]] std::uint64_t expected() const;

 private:
  std::size_t count_;
  HsaMemory words_;
  HsaMemory arguments_;
};

/// Bytes that differ from those of other seeds.
std::vector<std::uint8_t> random_bytes(std::size_t bytes, std::uint32_t seed);

}  // namespace eclip::test
