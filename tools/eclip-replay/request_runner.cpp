#include "tools/eclip-replay/request_runner.h"

#include <fmt/core.h>

#include <algorithm>

namespace eclip::replay {
namespace {

/// So that room in a full ring can be waited for in small steps.
constexpr std::uint64_t kernels_per_token = 64;
constexpr std::size_t signal_count = 256;
/// LDS of a workgroup on gfx9. Profiles of other GPUs ask for more; the replay record has their
/// figure, and the kernel itself uses none.
constexpr std::uint32_t largest_group_segment = 65536;

eclip_dispatch dispatch_of(const model::LaunchShape& shape, std::uint32_t kernel) {
  eclip_dispatch dispatch{};
  dispatch.kernel = kernel;
  dispatch.flags = ECLIP_PACKET_BARRIER;
  // Workgroups in y: their product with the workgroup size may exceed 32 bits.
  dispatch.workgroup_size[0] =
      static_cast<std::uint16_t>(std::clamp<std::uint32_t>(shape.workgroup_size, 1, 1024));
  dispatch.workgroup_size[1] = dispatch.workgroup_size[2] = 1;
  dispatch.grid_size[0] = dispatch.workgroup_size[0];
  dispatch.grid_size[1] = std::max<std::uint32_t>(shape.workgroups, 1);
  dispatch.grid_size[2] = 1;
  dispatch.group_segment_bytes = std::min(shape.local_memory_bytes, largest_group_segment);
  return dispatch;
}

}  // namespace

std::vector<Lease> lease_streams(Connection& connection, const std::vector<StreamChoice>& choices) {
  std::vector<Lease> leases;
  leases.reserve(choices.size());
  for (const StreamChoice& choice : choices)
    leases.push_back(choice.stream ? connection.lease_stream(*choice.stream)
                                   : connection.lease_any(choice.cu_count));
  return leases;
}

RequestRunner::RequestRunner(Connection& connection, const Program& program,
                             std::vector<Lease> leases, Settings settings)
    : connection_(&connection),
      leases_(std::move(leases)),
      settings_(settings),
      order_(program.order) {
  if (settings_.mix) mix_.emplace(connection);
  const std::uint32_t code =
      connection.load_code(program.image.bytes.data(), program.image.bytes.size());
  const std::uint32_t kernarg_bytes = settings_.mix ? sizeof(MixKernarg) : 0;
  for (std::size_t i = 0; i < program.shapes.size(); ++i) {
    const std::uint32_t kernel =
        connection.register_kernel(code, program.image.kernel_offsets[i], kernarg_bytes);
    dispatches_.push_back(dispatch_of(program.shapes[i], kernel));
    if (mix_) dispatches_.back().kernarg_memory = mix_->memory();
  }
  signals_.reserve(signal_count);
  for (std::size_t i = 0; i < signal_count; ++i) signals_.push_back(connection.create_signal());
}

void RequestRunner::run() {
  for (std::size_t i = 0; i < order_.size(); ++i)
    submit_kernel(order_[i], i == 0, i + 1 == order_.size());
  wait_for_all();
}

std::size_t RequestRunner::lease_of(std::uint64_t kernel) const {
  return settings_.switch_every == 0 ? 0 : kernel / settings_.switch_every % leases_.size();
}

void RequestRunner::submit_kernel(std::uint32_t index, bool first, bool last) {
  const std::size_t lease = lease_of(kernels_);
  if (lease != current_) change_stream(lease, first);
  eclip_dispatch dispatch = dispatches_[index];
  if (mix_) {
    // The kernel that used the slot before must be known to have completed.
    while (!in_flight_.empty() &&
           kernels_ - in_flight_.front().kernel + kernels_per_token >= MixChain::slot_count)
      wait_for_oldest();
    dispatch.kernarg_offset = mix_->add();
  }
  const bool ends_on_stream = lease_of(kernels_ + 1) != lease;
  const bool with_signal = last || ends_on_stream || kernels_ % kernels_per_token == 0;
  const Token token = submit(dispatch, with_signal);
  if (with_signal) {
    in_flight_.push_back({kernels_, token});
    last_token_ = token;
  }
  ++kernels_;
}

void RequestRunner::change_stream(std::size_t lease, bool first) {
  current_ = lease;
  ++switches_;
  // The request before has been waited for: nothing is left to depend on.
  if (first) return;
  eclip_barrier barrier{};
  barrier.kind = ECLIP_BARRIER_AND;
  barrier.dependency_count = 1;
  barrier.dependencies[0] = last_token_;
  submit(barrier, false);
}

template <class Packet>
Token RequestRunner::submit(Packet packet, bool with_signal) {
  if (with_signal) {
    // All signals in use: the one that is next was the first to be used.
    while (in_flight_.size() >= signals_.size()) wait_for_oldest();
    packet.flags |= ECLIP_PACKET_SIGNAL;
    packet.signal = signals_[signal_uses_++ % signals_.size()].id();
  }
  Token token{};
  while (!leases_[current_].try_submit(packet, &token)) {
    if (in_flight_.empty())
      throw ApiError(EIO, "the lease's ring is full, yet nothing in it is left to wait for");
    wait_for_oldest();
  }
  ++packets_;
  return token;
}

void RequestRunner::wait_for_oldest() {
  const InFlight oldest = in_flight_.front();
  in_flight_.pop_front();
  if (!connection_->wait(oldest.token, settings_.timeout))
    throw ApiError(
        ETIMEDOUT,
        fmt::format("kernel {} did not complete within {} s of host time", oldest.kernel,
                    std::chrono::duration_cast<std::chrono::seconds>(settings_.timeout).count()));
}

void RequestRunner::wait_for_all() {
  // The last token covers all before it; waiting for those one by one would only wake up more.
  if (in_flight_.empty()) return;
  in_flight_.erase(in_flight_.begin(), in_flight_.end() - 1);
  wait_for_oldest();
}

}  // namespace eclip::replay
