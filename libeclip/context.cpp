#include "libeclip/context.h"

#include <algorithm>
#include <ctime>

#include "ipc/futex.h"
#include "ipc/testpoint.h"
#include "libeclip/errors.h"
#include "libeclip/program.h"

using eclip::Errc;

namespace {

/// The kernel's coarse clock: at most a tick (1 to 10 ms) behind CLOCK_MONOTONIC, a few loads.
std::uint64_t coarse_now_ns() {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
  return static_cast<std::uint64_t>(now.tv_sec) * 1'000'000'000 +
         static_cast<std::uint64_t>(now.tv_nsec);
}

constexpr std::uint64_t to_ns(std::chrono::nanoseconds duration) {
  return static_cast<std::uint64_t>(duration.count());
}

/// Whether eclipd's sign of life is old, and no thread of ours has looked since the last period: a
/// stopped or overloaded eclipd is not a dead one, only the socket tells.
bool should_look(const eclip::Board& board, std::atomic<std::uint64_t>& next_look_ns) {
  const std::uint64_t now = coarse_now_ns();
  const std::uint64_t beat = board.heartbeat_ns.load(std::memory_order_relaxed);
  if (now < beat + to_ns(eclip::Board::heartbeat_stale)) return false;
  std::uint64_t next = next_look_ns.load(std::memory_order_relaxed);
  return now >= next &&
         next_look_ns.compare_exchange_strong(next, now + to_ns(eclip::Board::heartbeat_period),
                                              std::memory_order_relaxed);
}

}  // namespace

eclip_context::eclip_context(eclip::UniqueFd socket, std::chrono::milliseconds timeout)
    : control(std::move(socket), timeout) {}

eclip_context::~eclip_context() {
  eclip_scheduler::end(std::move(scheduler));
  // eclipd releases everything of a closed connection, but in its own time; a program that
  // reconnects at once expects its streams to be free.
  const auto deadline = std::chrono::steady_clock::now() + control.timeout();
  for (const auto& lease : leases) {
    if (std::chrono::steady_clock::now() > deadline) break;
    const auto released = control.request(eclip::MessageType::lease_release,
                                          eclip::Handle{lease->id}, eclip::MessageType::ok);
    if (!released) break;
  }
}

eclip::Result<void> eclip_context::introduce(const eclip::Hello& hello) {
  auto reply = control.request(eclip::MessageType::hello, hello, eclip::MessageType::welcome);
  if (!reply) return tl::unexpected(reply.error());
  if (reply->fds.size() != 3)
    return eclip::fail(
        Errc::malformed,
        "eclipd's welcome has " + std::to_string(reply->fds.size()) + " regions instead of 3");
  auto board = eclip::Region::open(std::move(reply->fds[0]), eclip::RegionKind::board,
                                   sizeof(eclip::Board), false);
  if (!board) return eclip::fail(board.error(), "board");
  auto state = eclip::Region::open(std::move(reply->fds[1]), eclip::RegionKind::worker_state,
                                   sizeof(eclip::WorkerState), false);
  if (!state) return eclip::fail(state.error(), "worker state");
  auto request = eclip::Region::open(std::move(reply->fds[2]), eclip::RegionKind::worker_request,
                                     sizeof(eclip::WorkerRequest), true);
  if (!request) return eclip::fail(request.error(), "worker request");
  ECLIP_TESTPOINT("regions_mapped");
  worker = eclip::payload_of<eclip::Welcome>(reply->message).worker;
  regions.emplace(eclip::WelcomeRegions{std::move(*board), std::move(*state), std::move(*request)});
  signals.emplace(this->state());
  auto made = eclip::DispatchRecorder::from_environment(this->board(), this->state(), *signals,
                                                        hello.worker_name.str());
  if (!made) return tl::unexpected(made.error());
  recorder = std::move(*made);
  return {};
}

void eclip_context::wake_forwarder() const {
  // Pairs with the forwarder's: it announces its sleep and then looks at the rings once more.
  // Either it sees our store there or we see its announcement here. (ThreadSanitizer does not model
  // fences; no access to ordinary memory depends on this one, so it misses nothing and reports
  // nothing.)
  std::atomic_thread_fence(std::memory_order_seq_cst);
  if (board().forwarder_asleep.load(std::memory_order_relaxed) == 0) return;
  request().wake.fetch_add(1, std::memory_order_seq_cst);
  eclip::futex_wake_all(request().wake);
}

int eclip_context::check_alive() {
  const std::uint32_t fault = state().fault.load(std::memory_order_acquire);
  if (fault != 0) {
    const std::error_code code(static_cast<int>(fault), eclip::eclip_category());
    return eclip::report(EPROTO,
                         "eclipd has cut this worker off: packet " +
                             std::to_string(state().fault_packet.load(std::memory_order_relaxed)) +
                             " of lease " +
                             std::to_string(state().fault_lease.load(std::memory_order_relaxed)) +
                             " was refused (" + code.message() + "); connect again to go on");
  }
  if (!control.gone() && should_look(board(), next_look_ns)) control.look_for_hangup();
  if (control.gone())
    return eclip::report(ECONNRESET, "eclipd is gone; its streams and memory went with it");
  return 0;
}

eclip_lease* eclip_context::adopt(std::unique_ptr<eclip_lease> lease) {
  if (recorder) recorder->lease_acquired(lease->id, lease->stream, lease->cu_count);
  const std::lock_guard lock(objects_mutex);
  leases.push_back(std::move(lease));
  return leases.back().get();
}

bool eclip_context::release(eclip_lease* lease) {
  const auto released = control.request(eclip::MessageType::lease_release, eclip::Handle{lease->id},
                                        eclip::MessageType::ok);
  const std::lock_guard lock(objects_mutex);
  std::erase_if(leases, [lease](const auto& held) { return held.get() == lease; });
  return released.has_value();
}
