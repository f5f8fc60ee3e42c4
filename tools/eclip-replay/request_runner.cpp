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

std::vector<Lease> lease_streams(Connection& connection, const std::vector<StreamChoice>& choices) {
  std::vector<Lease> leases;
  leases.reserve(choices.size());
  for (const StreamChoice& choice : choices)
    leases.push_back(choice.stream ? connection.lease_stream(*choice.stream)
                                   : connection.lease_any(choice.cu_count));
  return leases;
}

}  // namespace

std::unique_ptr<RequestRunner> make_runner(Connection& connection, const Program& program,
                                           const Options& options) {
  if (options.by_plan) return std::make_unique<PlannedRunner>(connection, program, options);
  return std::make_unique<LeasedRunner>(connection, program, options);
}

RequestRunner::RequestRunner(Connection& connection, const Program& program, bool mix)
    : connection_(&connection), order_(program.order) {
  if (mix) mix_.emplace(connection);
  const std::uint32_t code =
      connection.load_code(program.image.bytes.data(), program.image.bytes.size());
  const std::uint32_t kernarg_bytes = mix ? sizeof(MixKernarg) : 0;
  for (std::size_t i = 0; i < program.shapes.size(); ++i) {
    const std::uint32_t kernel =
        connection.register_kernel(code, program.image.kernel_offsets[i], kernarg_bytes);
    dispatches_.push_back(dispatch_of(program.shapes[i], kernel));
    if (mix_) dispatches_.back().kernarg_memory = mix_->memory();
  }
}

// --- leased
// ---------------------------------------------------------------------------------------

LeasedRunner::LeasedRunner(Connection& connection, const Program& program, const Options& options)
    : RequestRunner(connection, program, options.mix),
      leases_(lease_streams(connection, options.streams)),
      switch_every_(options.switch_every),
      timeout_(options.timeout) {
  signals_.reserve(signal_count);
  for (std::size_t i = 0; i < signal_count; ++i) signals_.push_back(connection.create_signal());
}

void LeasedRunner::run(Clock::time_point) {
  for (std::size_t i = 0; i < order_.size(); ++i)
    submit_kernel(order_[i], i == 0, i + 1 == order_.size());
  wait_for_all();
}

std::vector<RequestRunner::Stream> LeasedRunner::streams() const {
  std::vector<Stream> streams;
  for (const Lease& lease : leases_) {
    const eclip_lease_state state = lease.describe();
    streams.push_back({state.stream, state.cu_count});
  }
  return streams;
}

std::size_t LeasedRunner::lease_of(std::uint64_t kernel) const {
  return switch_every_ == 0 ? 0 : kernel / switch_every_ % leases_.size();
}

void LeasedRunner::submit_kernel(std::uint32_t index, bool first, bool last) {
  const std::size_t lease = lease_of(kernels_);
  if (lease != current_) change_stream(lease, first);
  eclip_dispatch dispatch = dispatches_[index];
  dispatch.flags = ECLIP_PACKET_BARRIER;
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

void LeasedRunner::change_stream(std::size_t lease, bool first) {
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
Token LeasedRunner::submit(Packet packet, bool with_signal) {
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

void LeasedRunner::wait_for_oldest() {
  const InFlight oldest = in_flight_.front();
  in_flight_.pop_front();
  if (!connection_->wait(oldest.token, timeout_))
    throw ApiError(ETIMEDOUT,
                   fmt::format("kernel {} did not complete within {} s of host time", oldest.kernel,
                               std::chrono::duration_cast<std::chrono::seconds>(timeout_).count()));
}

void LeasedRunner::wait_for_all() {
  // The last token covers all before it; waiting for those one by one would only wake up more.
  if (in_flight_.empty()) return;
  in_flight_.erase(in_flight_.begin(), in_flight_.end() - 1);
  wait_for_oldest();
}

// --- by the plan
// ----------------------------------------------------------------------------------

PlannedRunner::PlannedRunner(Connection& connection, const Program& program, const Options& options)
    : RequestRunner(connection, program, options.mix),
      timeout_(options.timeout),
      scheduler_(connection.scheduler()),
      worker_program_(scheduler_.create_program()) {
  if (mix_ && order_.size() > MixChain::slot_count)
    throw ApiError(EINVAL, fmt::format("a request of {} kernels; --mix can do {} with --streams "
                                       "plan",
                                       order_.size(), MixChain::slot_count));
}

void PlannedRunner::run(Clock::time_point next) {
  worker_program_.begin_request();
  scheduler_.set_waiting(0);
  for (const std::uint32_t index : order_) {
    eclip_dispatch dispatch = dispatches_[index];
    if (mix_) dispatch.kernarg_offset = mix_->add();
    worker_program_.dispatch(dispatch);
  }
  const std::uint64_t request = worker_program_.end_request();
  // From its arrival on, the next request makes the worker active, too.
  const auto now = Clock::now();
  if (next > now && worker_program_.wait(request, next - now)) return;
  scheduler_.set_waiting(1);
  if (!worker_program_.wait(request, timeout_)) throw ApiError(ETIMEDOUT, eclip_last_error());
}

std::uint64_t PlannedRunner::packets() const {
  const eclip_scheduler_state now = state();
  return now.scheduled + now.bypassed + now.barriers;
}

}  // namespace eclip::replay
