#include "libeclip/control_channel.h"

#include <poll.h>
#include <unistd.h>

#include <algorithm>

namespace eclip {

using Clock = std::chrono::steady_clock;

class ControlChannel::Turn {
 public:
  /// Waits for the turn until the deadline.
  Turn(ControlChannel& channel, Clock::time_point deadline) : channel_(&channel) {
    std::unique_lock lock(channel.mutex_);
    taken_ = channel.turn_ended_.wait_until(lock, deadline, [&] { return !channel.taken_; });
    if (taken_) channel.taken_ = true;
  }
  Turn(const Turn&) = delete;
  Turn& operator=(const Turn&) = delete;
  ~Turn() {
    if (!taken_) return;
    const std::lock_guard lock(channel_->mutex_);
    channel_->taken_ = false;
    channel_->turn_ended_.notify_one();
  }
  [[nodiscard]] bool taken() const { return taken_; }

 private:
  ControlChannel* channel_;
  bool taken_;
};

ControlChannel::ControlChannel(UniqueFd socket, std::chrono::milliseconds timeout)
    : socket_(std::move(socket)), timeout_(timeout), owner_(::getpid()) {}

Result<ReceivedMessage> ControlChannel::request(Message message, MessageType expected,
                                                std::span<const int> fds,
                                                std::optional<MessageType> alternative) {
  if (is_parents())
    return fail(Errc::gone,
                "this connection to eclipd is the parent process's; connect again after fork()");
  if (gone()) return fail(Errc::gone, "eclipd is gone; its streams and memory went with it");
  // The time spent waiting for other threads' requests counts.
  const auto deadline = Clock::now() + timeout_;
  const Turn turn(*this, deadline);
  if (!turn.taken())
    return fail(Errc::timed_out, "other threads' requests to eclipd took all of the time");
  message.header.sequence = ++sequence_;
  const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - Clock::now());
  auto reply = exchange(socket_.get(), message, fds, std::max(left, std::chrono::milliseconds(1)));
  if (!reply) {
    // eclipd may also say of something else that it is gone.
    if (reply.error().code == Errc::gone) look_for_hangup();
    return reply;
  }
  if (const auto type = reply->message.header.type; type != expected && type != alternative)
    return fail(Errc::malformed,
                "eclipd answered request " +
                    std::to_string(static_cast<unsigned>(message.header.type)) +
                    " with message type " +
                    std::to_string(static_cast<unsigned>(reply->message.header.type)) + ", not " +
                    std::to_string(static_cast<unsigned>(expected)));
  return reply;
}

bool ControlChannel::is_parents() const {
  return ::getpid() != owner_;
}

bool ControlChannel::look_for_hangup() {
  if (gone()) return true;
  pollfd entry{.fd = socket_.get(), .events = POLLRDHUP, .revents = 0};
  if (::poll(&entry, 1, 0) <= 0) return false;
  if ((entry.revents & (POLLRDHUP | POLLHUP | POLLERR | POLLNVAL)) == 0) return false;
  gone_.store(true, std::memory_order_relaxed);
  return true;
}

}  // namespace eclip
