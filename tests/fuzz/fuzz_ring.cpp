// Arbitrary bytes in all that a worker can write: lease rings, their indices, the request words.
// The forwarder is the real one, turned by hand; the queues are plain memory.
//
// What must hold: nothing that a sanitizer sees, no packet that reaches for memory the GPU was not
// told of, a turn takes no more than the rings hold, and workers that are detached go.
//
// Input: operations, each one byte and its arguments.
#include <array>
#include <memory>

#include "daemon/forwarder.h"
#include "tests/fake/fake_device.h"
#include "tests/fuzz/fuzz_input.h"

namespace eclip::fuzz {
namespace {

using namespace eclip::daemon;

constexpr std::size_t worker_count = 2;
constexpr std::uint32_t stream_count = 2;
constexpr std::uint32_t queue_packets = 64;
constexpr std::size_t max_operations = 128;
constexpr std::uint32_t leases_per_worker = 3;

enum Operation : std::uint8_t {
  write_packet,   // sensible but for what the bytes say
  write_bytes,    // offset, length, bytes into the ring, indices included
  raise_index,    // by 0 to 255
  set_index,      // any
  write_request,  // offset, length, bytes
  turn,
  run_queues,
  open,
  close,
  revoke,
  quiesce,
  free_memory,
  operation_count
};

struct HostileWorker {
  std::unique_ptr<WorkerState> state = std::make_unique<WorkerState>();
  std::unique_ptr<WorkerRequest> request = std::make_unique<WorkerRequest>();
  std::shared_ptr<ForwardedWorker> forwarded = std::make_shared<ForwardedWorker>();
  std::array<LeaseRing*, leases_per_worker> rings{};
  std::array<LeaseId, leases_per_worker> leases{};
  GpuMemory signals;
  GpuMemory code;
  GpuMemory memory;
};

class World {
 public:
  World() {
    device_.on_bad_packet = [](const std::string& what) { finding(what); };
    std::vector<AqlRing*> rings;
    for (std::size_t i = 0; i < stream_count; ++i) {
      queues_.push_back(device_.create_queue(queue_packets, CuMask(60)).value());
      rings.push_back(&queues_.back()->ring());
    }
    drain_ = device_.allocate_system(64 * sizeof(SignalSlot)).value();
    forwarder_ = std::make_unique<Forwarder>(
        Forwarder::Options{.spin = {}, .nap = {}}, rings,
        Forwarder::OwnSignals{.slots = {reinterpret_cast<SignalSlot*>(drain_.host()), 64},
                              .gpu_address = drain_.gpu_address()},
        board_, [](WorkerId, LeaseId, std::uint64_t, const Error&) {},
        [](WorkerId, LeaseId, LeaseEnd) {});
    for (std::size_t i = 0; i < worker_count; ++i) add_worker(workers_[i], i + 1);
  }

  void step(Input& input) {
    const auto who = input.take<std::uint8_t>();
    HostileWorker& worker = workers_[who % worker_count];
    const std::uint32_t which = who / worker_count % leases_per_worker;
    // The mapping goes when the lease has ended; a worker's own would stay.
    LeaseRing* const ring = is_open(worker, which) ? worker.rings[which] : nullptr;
    switch (input.take<std::uint8_t>() % operation_count) {
      case write_packet:
        if (ring != nullptr) packet(*ring, input);
        break;
      case write_bytes: {
        const auto offset = input.take<std::uint16_t>() % (sizeof(LeaseRing) - 256);
        const auto bytes = input.take_bytes(input.take<std::uint8_t>());
        if (ring != nullptr && !bytes.empty())
          std::memcpy(reinterpret_cast<std::byte*>(ring) + offset, bytes.data(), bytes.size());
        break;
      }
      case raise_index:
        if (ring != nullptr) ring->written += input.take<std::uint8_t>();
        break;
      case set_index:
        if (ring != nullptr) ring->written = input.take<std::uint64_t>();
        break;
      case write_request: {
        const auto offset = input.take<std::uint16_t>() % (sizeof(WorkerRequest) - 256);
        const auto bytes = input.take_bytes(input.take<std::uint8_t>());
        if (!bytes.empty())
          std::memcpy(reinterpret_cast<std::byte*>(worker.request.get()) + offset, bytes.data(),
                      bytes.size());
        break;
      }
      case run_queues:
        device_.run_queues();
        break;
      case open: {
        const auto how = input.take<std::uint8_t>();
        open_lease(worker, which, StreamId{how % stream_count}, (how & 0x80) != 0);
        break;
      }
      case close:
        forwarder_->close_lease(worker.forwarded, worker.leases[which], LeaseEnd::released,
                                input.take<std::uint8_t>() % 2 != 0);
        break;
      case revoke:
        forwarder_->revoke_lease(worker.forwarded, worker.leases[which], LeaseEnd::administrator,
                                 1);
        break;
      case quiesce:
        forwarder_->quiesce(worker.forwarded, [] {});
        break;
      case free_memory:
        forwarder_->change_objects(worker.forwarded,
                                   [](WorkerObjects& objects) { objects.memory.erase(1); });
        break;
      default:
        forwarder_->turn();
        break;
    }
  }

  /// All workers go, whatever they have left in their rings.
  void end() {
    std::size_t gone = 0;
    for (auto& worker : workers_) forwarder_->detach(worker.forwarded, [&] { ++gone; });
    for (int i = 0; gone < worker_count; ++i) {
      if (i == 10'000) finding("a worker that was detached does not go");
      forwarder_->turn();
      device_.run_queues();
    }
  }

 private:
  void add_worker(HostileWorker& worker, std::uint64_t id) {
    worker.signals = device_
                         .register_host({reinterpret_cast<std::byte*>(worker.state->signals.data()),
                                         sizeof worker.state->signals})
                         .value();
    worker.code = device_.allocate_system(4096).value();
    worker.memory = device_.allocate_system(4096).value();
    auto& objects = worker.forwarded->objects;
    objects.signal_slots = worker.state->signals.data();
    objects.signals_gpu_address = worker.signals.gpu_address();
    objects.kernels = {
        {.object = worker.code.gpu_address(), .kernarg_bytes = 64, .group_segment_bytes = 0},
        {.object = worker.code.gpu_address() + 64, .kernarg_bytes = 0, .group_segment_bytes = 64}};
    objects.memory.emplace(
        1, WorkerObjects::Memory{.gpu_address = worker.memory.gpu_address(), .bytes = 4096});
    worker.forwarded->id = WorkerId{id};
    worker.forwarded->state = worker.state.get();
    worker.forwarded->request = worker.request.get();
    forwarder_->attach(worker.forwarded);
    for (std::uint32_t i = 0; i < 2; ++i) open_lease(worker, i, StreamId{i});
    forwarder_->turn();
  }
  static bool is_open(const HostileWorker& worker, std::uint32_t which) {
    const auto state = worker.state->leases[which].state.load();
    return state == static_cast<std::uint32_t>(LeaseState::active) ||
           state == static_cast<std::uint32_t>(LeaseState::revoked);
  }
  void open_lease(HostileWorker& worker, std::uint32_t which, StreamId stream,
                  bool scheduled = false) {
    // A slot is used again only after its lease has ended, as the control thread does it.
    if (is_open(worker, which)) return;
    auto& slot = worker.state->leases[which];
    auto region =
        Region::create("ring", RegionKind::lease_ring, sizeof(LeaseRing), RegionWriter::both, 1);
    if (!region) finding(region.error().message());
    LeaseRing& ring = region->payload<LeaseRing>();
    worker.leases[which] = LeaseId{++last_lease_};
    slot.state = static_cast<std::uint32_t>(LeaseState::active);
    forwarder_->open_lease(worker.forwarded,
                           std::make_unique<ForwardedLease>(ForwardedLease{
                               .id = worker.leases[which],
                               .stream = stream,
                               .region = std::make_shared<const Region>(std::move(*region)),
                               .reader = LeaseRingReader(ring),
                               .slot = &slot,
                               .scheduled = scheduled}));
    worker.rings[which] = &ring;
  }
  static void packet(LeaseRing& ring, Input& input) {
    const auto bytes = input.take_bytes(sizeof(LeasePacket));
    LeasePacket packet{};
    packet.type = LeasePacketType::dispatch;
    packet.dispatch.kernel = 2;
    packet.dispatch.grid_size = {64, 1, 1};
    packet.dispatch.workgroup_size = {64, 1, 1};
    if (!bytes.empty()) {
      std::array<std::uint8_t, sizeof packet> image;
      std::memcpy(image.data(), &packet, sizeof packet);
      for (std::size_t i = 0; i < bytes.size(); ++i) image[i] ^= bytes[i];
      std::memcpy(&packet, image.data(), sizeof packet);
    }
    const std::uint64_t index = ring.written;
    ring.slots[index % LeaseRing::slot_count].packet = packet;
    ring.written = index + 1;
  }

  test::FakeDevice device_;
  std::array<HostileWorker, worker_count> workers_;
  Board board_{};
  std::vector<std::unique_ptr<HardwareQueue>> queues_;
  GpuMemory drain_;
  std::unique_ptr<Forwarder> forwarder_;
  std::uint64_t last_lease_ = 0;
};

}  // namespace
}  // namespace eclip::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  eclip::fuzz::World world;
  eclip::fuzz::Input input(data, size);
  for (std::size_t i = 0; i < eclip::fuzz::max_operations && !input.empty(); ++i) world.step(input);
  world.end();
  return 0;
}
