#include "daemon/service.h"

#include <spdlog/spdlog.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <random>
#include <utility>

#include "daemon/profile_library.h"
#include "ipc/active_set.h"
#include "ipc/printable.h"

namespace eclip::daemon {
namespace {

constexpr std::uint32_t queue_packets = 4096;
/// The forwarder's own: for drains, and for packets that it wants to see complete.
constexpr std::size_t own_signal_count = 2048;
/// Below this distance of two clock samples their jitter would show.
constexpr std::chrono::milliseconds clock_baseline{2};

std::string kernel_of(const Blame& packet) {
  return packet.kernel == 0 ? "a barrier" : fmt::format("kernel {}", packet.kernel);
}

std::uint64_t random_epoch() {
  std::random_device device;
  return std::uint64_t{device()} << 32 | device();
}

}  // namespace

Service::Service(Config config, Probes probes)
    : config_(std::move(config)),
      epoch_(random_epoch()),
      wake_fd_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)),
      mailbox_([fd = wake_fd_.get()] {
        const std::uint64_t one = 1;
        // Only a full counter can refuse, and then the fd is readable already.
        [[maybe_unused]] const auto written = ::write(fd, &one, sizeof one);
      }),
      guard_(std::move(probes.guard)),
      ioctl_probe_(std::move(probes.ioctls)),
      plans_(fail(Errc::unsupported, "eclipd does not plan (planner.enabled is false)")) {}

Service::~Service() {
  forwarder_.reset();
  queues_.clear();  // before the memory that their packets use
}

Result<std::unique_ptr<Service>> Service::create(const Config& config,
                                                 std::unique_ptr<GpuDevice> device, Probes probes,
                                                 PlanHistory history) {
  std::unique_ptr<Service> service(new Service(config, std::move(probes)));
  if (!service->wake_fd_) return fail_errno(errno, "create an eventfd");
  service->device_ = std::move(device);
  service->power_.emplace(service->device_->topology().render_minor);
  if (auto created = service->create_pool(); !created) return tl::unexpected(created.error());
  auto watched = service->device_->watch([raw = service.get()](const Error& error) {
    raw->mailbox_.post([raw, error] { raw->failure_ = error; });
  });
  if (!watched) return tl::unexpected(watched.error());
  service->start_forwarder(std::move(*watched));
  if (config.planner.enabled) service->start_planning(std::move(history));
  return service;
}

Result<void> Service::create_pool() {
  const GpuTopology& gpu = device_->topology();
  const auto sample = device_->sample_clock();
  if (!sample) return tl::unexpected(sample.error());
  first_sample_ = *sample;
  const auto masks = pool_masks(config_, gpu);
  if (!masks) return tl::unexpected(masks.error());
  if (auto leased = take_lease_on_budget(masks->size()); !leased) return leased;
  for (const auto& mask : *masks) {
    auto queue = device_->create_queue(queue_packets, mask);
    if (!queue)
      return fail(queue.error(),
                  "create stream " + std::to_string(queues_.size()) + " of the pool");
    queues_.push_back(std::move(*queue));
  }
  pool_size_ = queues_.size();
  create_unmasked_queues();
  auto signals = device_->allocate_system(own_signal_count * sizeof(SignalSlot));
  if (!signals) return tl::unexpected(signals.error());
  own_signals_ = std::move(*signals);
  table_.emplace(*masks,
                 LeaseTable::Policy{
                     .gpu_cu_count = gpu.cu_count,
                     .max_holders_per_stream = config_.leases.max_holders_per_stream,
                     .preempt = config_.leases.preempt,
                     .grace = config_.leases.grace,
                     .claim_time = config_.leases.claim,
                     .unmasked_queues = static_cast<std::uint32_t>(queues_.size() - pool_size_)});
  queue_ioctls_at_start_ = device_->queue_ioctls();
  if (auto created = create_board(*masks); !created) return created;
  spdlog::info(
      "GPU at node {}: {}, {} CUs in {} shader engines; pool of {} streams, {} queues without a "
      "CU mask",
      gpu.node.value, gpu.name, gpu.cu_count, gpu.shader_engines, masks->size(),
      queues_.size() - pool_size_);
  return calibrate_clock();
}

void Service::create_unmasked_queues() {
  // After the pool's: the guard can tell masks from queues best in a process that has only masked
  // ones (docs/adr/0009).
  const std::size_t slots = device_->topology().hardware_queue_slots;
  std::size_t wanted = PlanTable::max_workers;
  if (slots != 0) wanted = std::min(wanted, slots - std::min(slots, pool_size_));
  if (wanted < PlanTable::max_workers)
    spdlog::warn(
        "the GPU has {} hardware queue slots, of which the pool takes {}: {} scheduled workers at "
        "a "
        "time get a queue without a CU mask, later ones use the pool alone (fewer pool.streams "
        "leave room for more)",
        slots, pool_size_, wanted);
  for (std::size_t i = 0; i < wanted; ++i) {
    auto queue = device_->create_queue(queue_packets, std::nullopt);
    if (!queue) {
      spdlog::warn("queue {} without a CU mask: {}; scheduled workers beyond {} do without",
                   queues_.size(), queue.error().message(), i);
      return;
    }
    queues_.push_back(std::move(*queue));
  }
}

Result<void> Service::create_board(const std::vector<CuMask>& masks) {
  auto region =
      Region::create("eclip-board", RegionKind::board, sizeof(Board), RegionWriter::daemon, epoch_);
  if (!region) return tl::unexpected(region.error());
  board_region_.emplace(std::move(*region));
  auto active_set = Region::create("eclip-active-set", RegionKind::active_set, sizeof(ActiveSet),
                                   RegionWriter::both, epoch_);
  if (!active_set) return tl::unexpected(active_set.error());
  active_set_region_.emplace(std::move(*active_set));
  Board& board = board_region_->payload<Board>();
  board.device_time_rate.store(std::uint64_t{1} << 32);
  board.gpu_counter_hz = device_->counter_hz();
  board.gpu_node = device_->topology().node.value;
  board.gpu_cu_count = device_->topology().cu_count;
  const std::string& name = device_->topology().name;
  std::copy_n(name.begin(), std::min(name.size(), board.gpu_name.size() - 1),
              board.gpu_name.begin());
  board.stream_count = static_cast<std::uint32_t>(masks.size());
  for (std::size_t i = 0; i < masks.size(); ++i) {
    board.streams[i].cu_count = masks[i].count();
    std::copy(masks[i].words().begin(), masks[i].words().end(), board.streams[i].mask.begin());
  }
  return {};
}

void Service::start_forwarder(CompletionInterrupt interrupt) {
  std::vector<AqlRing*> rings;
  for (auto& queue : queues_) rings.push_back(&queue->ring());
  forwarder_ = std::make_unique<Forwarder>(
      Forwarder::Options{.spin = config_.forwarder.spin,
                         .nap = config_.forwarder.nap,
                         .patience = config_.forwarder.patience},
      rings,
      Forwarder::OwnSignals{
          .slots = {reinterpret_cast<SignalSlot*>(own_signals_.host()), own_signal_count},
          .gpu_address = own_signals_.gpu_address()},
      board(),
      [this](WorkerId worker, LeaseId lease, std::uint64_t packet, const Error& error) {
        mailbox_.post(
            [this, worker, lease, packet, error] { cut_off(worker, lease, packet, error); });
      },
      [this](WorkerId, LeaseId lease, LeaseEnd reason) {
        mailbox_.post([this, lease, reason] { lease_has_ended(lease, reason); });
      });
  forwarder_->watch(config_.forwarder.watchdog,
                    [this](StreamId stream, const std::optional<Stuck>& stuck) {
                      mailbox_.post([this, stream, stuck] { say_stuck(stream, stuck); });
                    });
  forwarder_->start(std::move(interrupt));
}

Result<void> Service::calibrate_clock() {
  const auto sample = device_->sample_clock();
  if (!sample) return tl::unexpected(sample.error());
  const auto host = sample->host - first_sample_.host;
  if (host < clock_baseline) return {};
  const double device_seconds = static_cast<double>(sample->gpu_ticks - first_sample_.gpu_ticks) /
                                static_cast<double>(device_->counter_hz());
  const double rate = device_seconds / std::chrono::duration<double>(host).count();
  board().device_time_rate.store(static_cast<std::uint64_t>(rate * 4294967296.0));
  return {};
}

void Service::beat() {
  const auto now = Clock::now().time_since_epoch();  // CLOCK_MONOTONIC
  board().heartbeat_ns.store(static_cast<std::uint64_t>(std::chrono::nanoseconds(now).count()),
                             std::memory_order_relaxed);
}

Result<void> Service::run_posted() {
  std::uint64_t count = 0;
  [[maybe_unused]] const auto got = ::read(wake_fd_.get(), &count, sizeof count);
  mailbox_.run_all();
  if (!failure_) return {};
  blame();
  return tl::unexpected(*failure_);
}

void Service::blame() const {
  forwarder_->stop();
  const auto unfinished = forwarder_->unfinished();
  for (const Blame& blamed : unfinished)
    spdlog::error("{} was at packet {} of {}: {} of lease {}", stream_name(blamed.stream),
                  blamed.packet, who_is(blamed.worker), kernel_of(blamed), blamed.lease.value);
  if (unfinished.empty()) spdlog::error("no stream had an unfinished packet");
}

std::string Service::who_is(WorkerId worker) const {
  const auto client = clients_.find(worker.value);
  if (client == clients_.end()) return fmt::format("worker {}, which has left", worker.value);
  return fmt::format("worker {} '{}' (pid {})", worker.value, client->second.worker->name(),
                     client->second.pid);
}

std::string Service::stream_name(StreamId stream) const {
  return table_->is_unmasked(stream) ? fmt::format("queue {} (no CU mask)", stream.value)
                                     : fmt::format("stream {}", stream.value);
}

void Service::say_stuck(StreamId stream, const std::optional<Stuck>& stuck) {
  if (!stuck) {
    if (stuck_.erase(stream) > 0) spdlog::info("{} goes on", stream_name(stream));
    return;
  }
  const Blame& packet = stuck->packet;
  const double seconds = std::chrono::duration<double>(stuck->since).count();
  if (stuck->waits_for) {
    spdlog::warn(
        "{}: packet {} of lease {} of {} has been held back for {:.1f} s: it waits for use {} of "
        "signal {}, which no packet on its way to the GPU completes. The worker must submit that "
        "one; to drop what waits: eclipctl lease revoke {} (forwarder.watchdog_s)",
        stream_name(stream), packet.packet, packet.lease.value, who_is(packet.worker), seconds,
        stuck->waits_for->generation, stuck->waits_for->signal, packet.lease.value);
    return;
  }
  stuck_[stream] = {
      .packet = packet,
      .since = Clock::now() - std::chrono::duration_cast<Clock::duration>(stuck->since)};
  spdlog::warn(
      "{} has been at packet {} of {} for {:.1f} s: {} of lease {}. If it is no kernel that takes "
      "so long, it hangs: end that worker, and if the stream does not go on then, restart eclipd, "
      "whose queues go with it (forwarder.watchdog_s)",
      stream_name(stream), packet.packet, who_is(packet.worker), seconds, kernel_of(packet),
      packet.lease.value);
}

Result<Worker*> Service::find(WorkerId worker) {
  const auto found = clients_.find(worker.value);
  if (found == clients_.end())
    return fail(Errc::invalid_argument, "say hello first: this connection has no worker");
  return found->second.worker.get();
}

Result<Service::NewWorker> Service::add_worker(const Peer& peer, const Hello& hello) {
  const std::string name = printable(hello.worker_name.str());
  const std::string profile = hello.profile.str();
  if (!profile.empty() && !is_profile_name(profile))
    return fail(Errc::invalid_argument, "'" + printable(profile) +
                                            "' is no name of a profile: letters, digits, '.', '_', "
                                            "'+', '-'");
  if (!(hello.requests_per_s >= 0 && hello.requests_per_s <= 1e6))
    return fail(Errc::invalid_argument, "requests_per_s must be from 0 to 1000000");
  if (clients_.size() + departing_.size() >= config_.workers.max_workers)
    return fail(Errc::quota_exceeded, "eclipd serves " +
                                          std::to_string(config_.workers.max_workers) +
                                          " workers, as many as it may (workers.max_workers)");
  const auto of_user = std::count_if(clients_.begin(), clients_.end(),
                                     [&](const auto& each) { return each.second.uid == peer.uid; });
  if (const auto limit = limits_of(config_, peer.uid).max_workers;
      static_cast<std::uint64_t>(of_user) >= limit)
    return fail(Errc::quota_exceeded, "uid " + std::to_string(peer.uid) + " has " +
                                          std::to_string(of_user) +
                                          " workers, as many as it may (max_workers of [leases] "
                                          "or [[limits]])");
  // Each new worker lengthens the baseline, so that the rate becomes more exact.
  if (auto calibrated = calibrate_clock(); !calibrated) return tl::unexpected(calibrated.error());
  const WorkerId id{++last_worker_};
  auto worker = Worker::create(id, name, *device_, epoch_);
  if (!worker) return tl::unexpected(worker.error());
  forwarder_->attach((*worker)->forwarded());
  NewWorker added{.id = id,
                  .fds = {board_region_->fd(), (*worker)->state_region().fd(),
                          (*worker)->request_region().fd()}};
  spdlog::info("worker {} '{}' connected: pid {}, uid {}, {}", id.value, name, peer.pid, peer.uid,
               peer.command);
  clients_.emplace(id.value, Client{.worker = std::move(*worker),
                                    .pid = peer.pid,
                                    .uid = peer.uid,
                                    .command = peer.command,
                                    .since = Clock::now()});
  if (plans_) {
    const Worker& planned = *clients_.at(id.value).worker;
    (*plans_)->add({.id = id,
                    .name = name,
                    .profile = profile,
                    .requests_per_s = hello.requests_per_s,
                    .tables = &planned.state_region().payload<WorkerState>().plans,
                    .request = &planned.request_region().payload<const WorkerRequest>()});
  }
  return added;
}

void Service::remove_worker(WorkerId id) {
  const auto found = clients_.find(id.value);
  if (found == clients_.end()) return;
  spdlog::info("worker {} '{}' left: {} packets", id.value, found->second.worker->name(),
               found->second.worker->forwarded()->packets.load());
  if (plans_) (*plans_)->remove(id);
  account_energy();
  table_->end_all(id, LeaseEnd::gone, true, Clock::now());
  carry_out_changes();
  auto worker = std::move(found->second.worker);
  clients_.erase(found);
  const auto forwarded = worker->forwarded();
  departing_.emplace(id.value, std::move(worker));
  forwarder_->detach(forwarded, [this, id] {
    mailbox_.post([this, id] {
      energy_.forget(id);
      departing_.erase(id.value);
    });
  });
}

Result<Worker::Allocated> Service::allocate_memory(WorkerId id, const MemoryAllocate& request) {
  auto worker = find(id);
  if (!worker) return tl::unexpected(worker.error());
  auto allocated = (*worker)->allocate(request, config_, *device_);
  if (allocated) {
    const std::uint32_t handle = allocated->reply.memory;
    forwarder_->change_objects(
        (*worker)->forwarded(),
        [handle, range = (*worker)->gpu_range(handle)](WorkerObjects& objects) {
          objects.memory.emplace(handle, range);
        });
  }
  return allocated;
}

Result<void> Service::free_memory(WorkerId id, std::uint32_t memory, std::function<void()> done) {
  auto worker = find(id);
  if (!worker) return tl::unexpected(worker.error());
  if (!(*worker)->has_memory(memory))
    return fail(Errc::not_found, "memory handle " + std::to_string(memory) + " is not known");
  const auto& forwarded = (*worker)->forwarded();
  forwarder_->change_objects(forwarded,
                             [memory](WorkerObjects& objects) { objects.memory.erase(memory); });
  forwarder_->quiesce(forwarded, [this, id, memory, done = std::move(done)] {
    mailbox_.post([this, id, memory, done] {
      auto still = find(id);
      if (!still) return;  // it has left; its memory goes with it
      (*still)->free(memory);
      done();
    });
  });
  return {};
}

Result<std::uint32_t> Service::load_code(WorkerId id, std::uint64_t bytes, int fd) {
  auto worker = find(id);
  if (!worker) return tl::unexpected(worker.error());
  return (*worker)->load_code(bytes, fd, config_, *device_);
}

Result<std::uint32_t> Service::register_kernel(WorkerId id, const KernelRegister& request) {
  auto worker = find(id);
  if (!worker) return tl::unexpected(worker.error());
  const auto registered = (*worker)->register_kernel(request, config_);
  if (!registered) return tl::unexpected(registered.error());
  forwarder_->change_objects(
      (*worker)->forwarded(),
      [kernel = registered->kernel](WorkerObjects& objects) { objects.kernels.push_back(kernel); });
  return registered->handle;
}

}  // namespace eclip::daemon
