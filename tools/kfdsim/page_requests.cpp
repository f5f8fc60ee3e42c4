#include "tools/kfdsim/page_requests.h"

#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <optional>
#include <string_view>

#include "tools/kfdsim/device_nodes.h"
#include "tools/kfdsim/fuse_replies.h"

namespace eclip::kfdsim {
namespace {

/// Handle of kfdsim's own opens; those that kfdsim gives to clients count from 1.
constexpr std::uint64_t own_handle = 0;
/// Requests or replies in a row before the other side gets its turn.
constexpr int turn = 64;

std::string_view name_in(const FuseRequest& request) {
  const auto* text = reinterpret_cast<const char*>(request.body.data());
  return {text, ::strnlen(text, request.body.size())};
}

std::optional<std::uint64_t> device_named(std::string_view name) {
  std::uint64_t node = 0;
  const char* const end = name.data() + name.size();
  const auto parsed = std::from_chars(name.data(), end, node);
  if (parsed.ec != std::errc() || parsed.ptr != end || !is_device(node)) return std::nullopt;
  return node;
}

}  // namespace

PageRequests::PageRequests(UniqueFd device, UniqueFd link, const ClientProcess& kfdsim)
    : device_(std::move(device)),
      link_(std::move(link)),
      kfdsim_(kfdsim),
      request_buffer_(fuse_buffer_bytes),
      data_buffer_(fuse_buffer_bytes) {}

void PageRequests::serve() {
  while (!ended_) {
    const short link_events = waiting_.empty() ? POLLIN : POLLIN | POLLOUT;
    std::array<pollfd, 2> fds{pollfd{device_.get(), POLLIN, 0},
                              pollfd{link_.get(), link_events, 0}};
    if (::poll(fds.data(), fds.size(), -1) < 0 && errno != EINTR) return;
    if ((fds[1].revents & POLLOUT) != 0) send_waiting();
    for (int i = 0; i < turn && take_reply(); ++i) {
    }
    for (int i = 0; i < turn && take_request(); ++i) {
    }
  }
}

bool PageRequests::take_request() {
  const ssize_t size = ::read(device_.get(), request_buffer_.data(), request_buffer_.size());
  if (size < static_cast<ssize_t>(sizeof(fuse_in_header))) {
    // ENOENT: the request was interrupted before it was read.
    const bool goes_on = size < 0 && (errno == EAGAIN || errno == EINTR || errno == ENOENT);
    if (!goes_on) ended_ = true;
    return goes_on && errno != EAGAIN;
  }
  const auto bytes =
      std::span<const std::byte>(request_buffer_).first(static_cast<std::size_t>(size));
  handle(FuseRequest::of(bytes), bytes);
  return !ended_;
}

bool PageRequests::take_reply() {
  const ssize_t size = ::recv(link_.get(), data_buffer_.data(), data_buffer_.size(), 0);
  if (size > 0) {
    // A refused reply (ENOENT) means that the requester is gone; nobody is left to be told.
    [[maybe_unused]] const ssize_t sent =
        ::write(device_.get(), data_buffer_.data(), static_cast<std::size_t>(size));
    return true;
  }
  if (size == 0 || (errno != EAGAIN && errno != EINTR)) ended_ = true;
  return false;
}

void PageRequests::handle(const FuseRequest& request, std::span<const std::byte> bytes) {
  const auto& header = request.header;
  if (header.opcode == FUSE_FORGET || header.opcode == FUSE_BATCH_FORGET) return forget(request);
  if (header.opcode == FUSE_INTERRUPT) return pass_on(bytes);
  if (is_device(header.nodeid)) return handle_device(request, bytes);
  if (header.nodeid == memory_directory_node) return handle_memory_directory(request);
  const bool own_directory = header.nodeid == FUSE_ROOT_ID && header.opcode == FUSE_LOOKUP &&
                             name_in(request) == memory_directory_name && from_kfdsim(request);
  if (!own_directory) return pass_on(bytes);
  reply_object(device_.get(), header.unique, entry_of(memory_directory_node));
}

void PageRequests::handle_memory_directory(const FuseRequest& request) {
  const auto& header = request.header;
  if (header.opcode == FUSE_GETATTR) {
    return reply_object(device_.get(), header.unique, attribute_reply(header.nodeid));
  }
  const auto node = device_named(name_in(request));
  if (!node || !from_kfdsim(request)) return reply_errno(device_.get(), header.unique, EACCES);
  if (header.opcode == FUSE_LOOKUP) {
    return reply_object(device_.get(), header.unique, entry_of(*node));
  }
  // The kernel shall forget the name; the node is there as long as somebody uses it.
  reply_errno(device_.get(), header.unique, header.opcode == FUSE_UNLINK ? 0 : EACCES);
}

void PageRequests::handle_device(const FuseRequest& request, std::span<const std::byte> bytes) {
  const std::uint64_t unique = request.header.unique;
  const std::uint64_t node = request.header.nodeid;
  switch (request.header.opcode) {
    case FUSE_READ:
      return read(request);
    case FUSE_WRITE:
      return write(request);
    case FUSE_GETATTR:
    case FUSE_SETATTR:
      return reply_object(device_.get(), unique, attribute_reply(node));
    case FUSE_FALLOCATE: {
      const auto range = request.as<fuse_fallocate_in>();
      const bool own = range.fh == own_handle;
      return reply_errno(device_.get(), unique,
                         own ? store_.punch(node, range.offset, range.length) : EOPNOTSUPP);
    }
    case FUSE_OPEN:
      return from_kfdsim(request) ? open_for_kfdsim(request) : pass_on(bytes);
    case FUSE_RELEASE:
      if (request.as<fuse_release_in>().fh != own_handle) return pass_on(bytes);
      store_.owner_closed(node);
      return reply_errno(device_.get(), unique, 0);
    case FUSE_IOCTL:
      return pass_on(bytes);
    default:
      return reply_errno(device_.get(), unique, ENOSYS);
  }
}

void PageRequests::open_for_kfdsim(const FuseRequest& request) {
  store_.owner_opened(request.header.nodeid);
  FuseOpenReply answer{};
  answer.fh = own_handle;
  answer.open_flags = open_page_cache;
  reply_object(device_.get(), request.header.unique, answer);
}

void PageRequests::read(const FuseRequest& request) {
  const auto arguments = request.as<fuse_read_in>();
  // Never short: the kernel would take that for the file's end.
  const auto data =
      std::span(data_buffer_).first(std::min<std::size_t>(arguments.size, data_buffer_.size()));
  store_.read(request.header.nodeid, arguments.offset, data);
  reply(device_.get(), request.header.unique, data);
}

void PageRequests::write(const FuseRequest& request) {
  const auto arguments = request.as<fuse_write_in>();
  const auto data = request.body.subspan(std::min(sizeof arguments, request.body.size()));
  if (const int error = store_.write(request.header.nodeid, arguments.offset, data); error != 0) {
    return reply_errno(device_.get(), request.header.unique, error);
  }
  fuse_write_out answer{};
  answer.size = static_cast<std::uint32_t>(data.size());
  reply_object(device_.get(), request.header.unique, answer);
}

void PageRequests::forget(const FuseRequest& request) {
  if (request.header.opcode == FUSE_FORGET) return store_.forgotten(request.header.nodeid);
  const auto batch = request.as<fuse_batch_forget_in>();
  auto rest = request.body.subspan(std::min(sizeof batch, request.body.size()));
  for (std::uint32_t i = 0; i < batch.count && rest.size() >= sizeof(fuse_forget_one); ++i) {
    fuse_forget_one one{};
    std::memcpy(&one, rest.data(), sizeof one);
    store_.forgotten(one.nodeid);
    rest = rest.subspan(sizeof one);
  }
}

bool PageRequests::from_kfdsim(const FuseRequest& request) const {
  return kfdsim_.has_thread(static_cast<pid_t>(request.header.pid));
}

void PageRequests::pass_on(std::span<const std::byte> bytes) {
  waiting_.emplace_back(bytes.begin(), bytes.end());
  send_waiting();
}

void PageRequests::send_waiting() {
  while (!waiting_.empty()) {
    const auto& bytes = waiting_.front();
    const ssize_t size = ::send(link_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (size < 0 && errno == EINTR) continue;
    if (size < 0) {
      if (errno != EAGAIN) ended_ = true;
      return;
    }
    waiting_.pop_front();
  }
}

}  // namespace eclip::kfdsim
