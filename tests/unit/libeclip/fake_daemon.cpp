#include "tests/unit/libeclip/fake_daemon.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstdlib>
#include <stdexcept>

#include "ipc/futex.h"
#include "tools/replay/replay_kernel.h"

namespace eclip::test {
namespace {

template <class T>
T value_or_throw(Result<T> result) {
  if (!result) throw std::runtime_error("fake daemon: " + result.error().message());
  return std::move(*result);
}

UniqueFd listen_on(const std::filesystem::path& path) {
  UniqueFd socket(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.c_str(), path.native().size());
  if (::bind(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 ||
      ::listen(socket.get(), 8) != 0)
    throw std::runtime_error("fake daemon: cannot listen on " + path.string());
  return socket;
}

std::filesystem::path make_directory() {
  std::string pattern = (std::filesystem::temp_directory_path() / "eclip-test-XXXXXX").string();
  if (::mkdtemp(pattern.data()) == nullptr) throw std::runtime_error("fake daemon: mkdtemp");
  return pattern;
}

}  // namespace

FakeDaemon::FakeDaemon(Behaviour behaviour)
    : behaviour_(std::move(behaviour)),
      directory_(make_directory()),
      path_(directory_ / "eclipd.sock"),
      board_(value_or_throw(
          Region::create("board", RegionKind::board, sizeof(Board), RegionWriter::daemon, 1))),
      state_(value_or_throw(Region::create("state", RegionKind::worker_state, sizeof(WorkerState),
                                           RegionWriter::daemon, 1))),
      request_(value_or_throw(Region::create("request", RegionKind::worker_request,
                                             sizeof(WorkerRequest), RegionWriter::both, 1))),
      active_set_(value_or_throw(Region::create("active", RegionKind::active_set, sizeof(ActiveSet),
                                                RegionWriter::both, 1))),
      scheduled_rings_(value_or_throw(Region::create("rings", RegionKind::lease_rings,
                                                     sizeof(LeaseRings), RegionWriter::both, 1))),
      listener_(listen_on(path_)),
      stop_(::eventfd(0, EFD_CLOEXEC)) {
  board().device_time_rate = 1ULL << 32U;
  board().heartbeat_ns = UINT64_MAX / 2;  // never stale, unless a test says so
  board().gpu_counter_hz = 25'000'000;
  board().gpu_cu_count = 60;
  board().stream_count = Board::max_streams;
  constexpr std::string_view name = "Test GPU (simulated)";
  std::copy(name.begin(), name.end(), board().gpu_name.begin());
  thread_ = std::thread([this] { serve(); });
}

FakeDaemon::~FakeDaemon() {
  die();
  std::filesystem::remove_all(directory_);
}

void FakeDaemon::die() {
  if (!thread_.joinable()) return;
  const std::uint64_t one = 1;
  static_cast<void>(::write(stop_.get(), &one, sizeof one) == sizeof one);
  thread_.join();
  listener_.reset();
}

void FakeDaemon::serve() {
  std::vector<UniqueFd> clients;
  while (true) {
    std::vector<pollfd> entries{{.fd = stop_.get(), .events = POLLIN, .revents = 0},
                                {.fd = listener_.get(), .events = POLLIN, .revents = 0}};
    for (const UniqueFd& client : clients)
      entries.push_back({.fd = client.get(), .events = POLLIN, .revents = 0});
    // A GPU looks at its queues all the time.
    ::poll(entries.data(), entries.size(), behaviour_.run_packets ? 0 : -1);
    if (entries[0].revents != 0) return;
    for (std::size_t i = clients.size(); i-- > 0;) {
      if (entries[i + 2].revents == 0) continue;
      auto received = receive_message(clients[i].get());
      if (!received)
        clients.erase(clients.begin() + static_cast<std::ptrdiff_t>(i));
      else if (received->has_value())
        reply_to(clients[i].get(), **received);
    }
    if (entries[1].revents != 0) {
      UniqueFd client(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
      if (client) clients.push_back(std::move(client));
    }
    if (behaviour_.run_packets) run_packets();
  }
}

void FakeDaemon::reply_to(int socket, const ReceivedMessage& received) {
  const Message& request = received.message;
  const std::uint32_t sequence = request.header.sequence;
  const std::lock_guard lock(mutex_);
  requests_.push_back(request);
  if (behaviour_.answer) {
    if (const auto answers = behaviour_.answer(request)) {
      for (const Message& answer : *answers) static_cast<void>(send_message(socket, answer));
      return;
    }
  }
  switch (request.header.type) {
    case MessageType::hello: {
      const std::array fds{board_->fd(), state_->fd(), request_->fd()};
      static_cast<void>(send_message(
          socket, make_message(MessageType::welcome, sequence, Welcome{.worker = 1, .epoch = 1}),
          fds));
      return;
    }
    case MessageType::lease_acquire:
    case MessageType::lease_claim:
      return grant_lease(socket, request);
    case MessageType::schedule:
      return schedule(socket, request);
    case MessageType::memory_allocate:
      return allocate(socket, request);
    case MessageType::code_load:
      remember_code(received);
      break;
    default:
      break;
  }
  static_cast<void>(
      send_message(socket, make_message(MessageType::ok, sequence, Handle{requests_.size()})));
}

void FakeDaemon::reply_with_fd(int socket, const Message& reply, int fd) {
  const std::array fds{fd};
  static_cast<void>(send_message(socket, reply, fds));
}

void FakeDaemon::grant_lease(int socket, const Message& request) {
  const auto asked = payload_of<LeaseAcquire>(request);
  auto region = value_or_throw(
      Region::create("ring", RegionKind::lease_ring, sizeof(LeaseRing), RegionWriter::both, 1));
  const LeaseRingReader reader(region.payload<LeaseRing>());
  rings_.push_back({std::move(region), reader});
  const bool any = asked.stream == LeaseAcquire::any_stream;
  const LeaseGranted granted{
      .lease = 100 + rings_.size(),
      .stream = any ? 2 : asked.stream,
      .cu_count = any ? asked.cu_count : 15,
      .slot = static_cast<std::uint32_t>(rings_.size() - 1) % max_leases_per_worker,
      .reserved = 0};
  lease_slot(granted.slot).lease = granted.lease;
  lease_slot(granted.slot).state = static_cast<std::uint32_t>(LeaseState::active);
  reply_with_fd(socket, make_message(MessageType::lease_granted, request.header.sequence, granted),
                rings_.back().region->fd());
}

void FakeDaemon::schedule(int socket, const Message& request) {
  const std::uint32_t sequence = request.header.sequence;
  if (!behaviour_.can_schedule) {
    const Error error{make_error_code(Errc::unsupported), "unknown message type"};
    static_cast<void>(send_message(socket, make_error(sequence, error)));
    return;
  }
  // Those of a scheduler before this one.
  std::erase_if(rings_, [](const Ring& ring) { return !ring.region; });
  Scheduled scheduled{};
  scheduled.count = PlanTable::max_streams;
  for (std::uint32_t i = 0; i < scheduled.count; ++i) {
    const bool no_mask = i + 1 == scheduled.count;
    scheduled.leases.at(i) = {.lease = scheduled_lease(i),
                              .stream = no_mask ? Scheduled::no_mask : i,
                              .cu_count = 15,
                              .slot = scheduled_slot(i),
                              .reserved = 0};
    lease_slot(scheduled_slot(i)).lease = scheduled_lease(i);
    lease_slot(scheduled_slot(i)).state = static_cast<std::uint32_t>(LeaseState::active);
    LeaseRing& ring = scheduled_ring(i);
    ring.written = 0;
    ring.taken = 0;
    rings_.push_back({std::nullopt, LeaseRingReader(ring)});
  }
  std::vector<int> fds{active_set_->fd(), scheduled_rings_->fd()};
  if (behaviour_.falsify_schedule) behaviour_.falsify_schedule(scheduled, fds);
  static_cast<void>(
      send_message(socket, make_message(MessageType::scheduled, sequence, scheduled), fds));
}

void FakeDaemon::plan(const WorkerPlan& plan) {
  const std::uint64_t epoch = board().plan_epoch + 1;
  write_plan(state().plans, epoch, plan);
  board().plan_epoch = epoch;
}

void FakeDaemon::allocate(int socket, const Message& request) {
  const auto asked = payload_of<MemoryAllocate>(request);
  const std::uint64_t bytes = (asked.bytes + 4095) / 4096 * 4096;
  const auto handle = static_cast<std::uint32_t>(memories_.size() + 1);
  auto fd =
      value_or_throw(create_sealed_memfd("memory", behaviour_.truncate_memory ? bytes / 2 : bytes));
  auto mapping = value_or_throw(map_memfd(fd.get(), true, 0));
  // The fake GPU's addresses are this process's.
  const MemoryAllocated allocated{
      .gpu_address = reinterpret_cast<std::uintptr_t>(mapping.get_address()),
      .bytes = bytes,
      .memory = handle,
      .reserved = 0};
  const auto reply =
      make_message(MessageType::memory_allocated, request.header.sequence, allocated);
  if ((asked.flags & MemoryAllocate::flag_device_local) != 0)
    static_cast<void>(send_message(socket, reply));
  else
    reply_with_fd(socket, reply, fd.get());
  memories_.emplace(handle, Memory{std::move(fd), std::move(mapping)});
}

void FakeDaemon::remember_code(const ReceivedMessage& received) {
  if (received.fds.size() != 1) return;
  const int fd = received.fds[0].get();
  const int seals = ::fcntl(fd, F_GET_SEALS);
  if (seals < 0 || (seals & F_SEAL_SHRINK) == 0) return;
  code_.resize(payload_of<Handle>(received.message).value);
  if (::pread(fd, code_.data(), code_.size(), 0) != static_cast<ssize_t>(code_.size()))
    code_.clear();
}

Region& FakeDaemon::ring_region(std::size_t index) {
  const std::lock_guard lock(mutex_);
  return *std::next(rings_.begin(), static_cast<std::ptrdiff_t>(index))->region;
}

void* FakeDaemon::memory(std::uint32_t handle) {
  const std::lock_guard lock(mutex_);
  return memories_.at(handle).mapping.get_address();
}

std::vector<Message> FakeDaemon::requests(MessageType type) {
  const std::lock_guard lock(mutex_);
  std::vector<Message> found;
  for (const Message& request : requests_)
    if (request.header.type == type) found.push_back(request);
  return found;
}

std::vector<std::byte> FakeDaemon::code_image() {
  const std::lock_guard lock(mutex_);
  return code_;
}

void FakeDaemon::forward(SignalUse use) {
  SignalSlot& slot = state().signals[use.signal];
  slot.value.store(1, std::memory_order_release);
  slot.generation.store(use.generation, std::memory_order_release);
}

void FakeDaemon::complete(SignalUse use, std::uint64_t start, std::uint64_t end) {
  forward(use);
  SignalSlot& slot = state().signals[use.signal];
  __atomic_store_n(&slot.start_ts, start, __ATOMIC_RELAXED);
  __atomic_store_n(&slot.end_ts, end, __ATOMIC_RELAXED);
  slot.value.store(0, std::memory_order_release);
  wake(use.signal);
}

void FakeDaemon::cancel(SignalUse use) {
  SignalSlot& slot = state().signals[use.signal];
  slot.cancelled.store(use.generation, std::memory_order_relaxed);
  slot.value.store(0, std::memory_order_relaxed);
  slot.generation.store(use.generation, std::memory_order_release);
  wake(use.signal);
}

void FakeDaemon::wake(std::uint32_t signal) {
  SignalSlot& slot = state().signals[signal];
  slot.wakes.fetch_add(1);
  futex_wake_all(slot.wakes);
}

void FakeDaemon::cut_off(Errc fault, std::uint64_t lease, std::uint64_t packet) {
  state().fault_lease = lease;
  state().fault_packet = packet;
  state().fault.store(static_cast<std::uint32_t>(fault), std::memory_order_release);
  for (std::uint32_t signal = 0; signal < WorkerState::signal_count; ++signal) wake(signal);
}

bool FakeDaemon::is_complete(SignalUse use) {
  const SignalSlot& slot = state().signals[use.signal];
  const auto past = static_cast<std::int32_t>(slot.generation - use.generation);
  return use.generation == 0 || past > 0 || (past == 0 && slot.value == 0);
}

void FakeDaemon::run_packets() {
  const std::lock_guard lock(mutex_);
  // The last ring first: where barriers are ignored, that order is wrong.
  for (auto ring = rings_.rbegin(); ring != rings_.rend(); ++ring) {
    while (ring->reader.waiting() > 0 && run_packet(ring->reader.copy_next())) ring->reader.pop();
  }
}

bool FakeDaemon::run_packet(const LeasePacket& packet) {
  if (packet.type == LeasePacketType::dispatch) {
    run_dispatch(packet.dispatch);
  } else if (!behaviour_.ignore_barriers) {
    for (const SignalUse& use : packet.barrier.dependencies)
      if (!is_complete(use)) return false;
  }
  if (packet.completion.generation != 0) complete(packet.completion);
  return true;
}

void FakeDaemon::run_dispatch(const LeaseDispatch& dispatch) {
  if (dispatch.kernarg_memory == 0) return;
  const auto* memory =
      static_cast<const std::byte*>(memories_.at(dispatch.kernarg_memory).mapping.get_address());
  replay::MixKernarg arguments;
  std::memcpy(&arguments, memory + dispatch.kernarg_offset, sizeof arguments);
  // The fake GPU's addresses are this process's.
  const auto word = [](std::uint64_t address) {
    return reinterpret_cast<std::uint64_t*>(address);  // NOLINT(performance-no-int-to-ptr)
  };
  std::vector<std::uint64_t> inputs;
  for (std::uint32_t i = 0; i < arguments.input_count; ++i)
    inputs.push_back(*word(arguments.inputs[i]));
  *word(arguments.output) = replay::mix(arguments.salt, inputs);
}

}  // namespace eclip::test
