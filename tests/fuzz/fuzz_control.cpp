// Arbitrary clients of eclipd: messages in any order with any bytes and descriptors, and any bytes
// in the regions that they were given. Service and ControlServer are the real ones, the GPU is
// plain memory.
//
// What must hold: nothing that a sanitizer sees, no packet that reaches for memory the GPU was not
// told of, and after the clients have gone no worker, lease, stream or memory is left.
//
// Input: operations, each one byte and its arguments.
#include <fcntl.h>
#include <spdlog/spdlog.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <optional>

#include "daemon/control_server.h"
#include "daemon/service.h"
#include "ipc/control_socket.h"
#include "ipc/lease_ring.h"
#include "ipc/region.h"
#include "tests/fake/fake_device.h"
#include "tests/fuzz/fuzz_input.h"

namespace eclip::fuzz {
namespace {

using namespace eclip::daemon;

constexpr std::size_t max_clients = 4;
constexpr std::size_t max_regions = 16;
constexpr std::size_t max_operations = 64;

enum Operation : std::uint8_t {
  connect,
  disconnect,
  send_raw,      // length, bytes
  send_request,  // type, descriptors, length, payload
  write_region,  // region, offset, length, bytes
  write_packet,  // region, slot, packet; raises the ring's index
  serve,
  operation_count
};

struct Client {
  UniqueFd socket;
  std::vector<UniqueFd> regions;
};

class World {
 public:
  World() {
    auto device = std::make_unique<test::FakeDevice>();
    device_ = device.get();
    device_->on_bad_packet = [](const std::string& what) { finding(what); };
    Config config;
    config.workers.max_workers = 3;
    config.workers.max_memory_bytes = std::uint64_t{8} << 20;
    config.workers.max_memory_objects = 8;
    config.workers.max_kernels = 16;
    config.forwarder.spin = std::chrono::microseconds(0);
    config.pool.streams = {"0:0-29", "0:30-59"};
    service_ = std::move(Service::create(config, std::move(device)).value());
    server_.emplace(*service_, -1, -1);
    objects_ = device_->memory_objects();
  }

  void step(Input& input) {
    Client& client = clients_[input.take<std::uint8_t>() % max_clients];
    switch (input.take<std::uint8_t>() % operation_count) {
      case connect:
        if (!client.socket) open(client);
        break;
      case disconnect:
        client = {};
        break;
      case send_raw:
        raw(client, input.take_bytes(input.take<std::uint16_t>() % 600), 0);
        break;
      case send_request:
        request(client, input);
        break;
      case write_region:
        if (const int fd = region(client, input.take<std::uint8_t>()); fd >= 0) {
          const auto offset = input.take<std::uint16_t>();
          const auto bytes = input.take_bytes(input.take<std::uint8_t>());
          [[maybe_unused]] const auto written = ::pwrite(fd, bytes.data(), bytes.size(), offset);
        }
        break;
      case write_packet:
        if (const int fd = region(client, input.take<std::uint8_t>()); fd >= 0) packet(fd, input);
        break;
      default:
        break;
    }
    serve_once();
    take_replies();
  }

  /// All clients go; all that they had must go too.
  void end() {
    for (auto& client : clients_) client = {};
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(10);
    while (left() && std::chrono::steady_clock::now() < deadline) {
      serve_once();
      ::usleep(50);
    }
    if (left()) finding("clients have gone and something of theirs is left");
  }

 private:
  void open(Client& client) {
    int ends[2];
    if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) != 0)
      finding("no socket pair");
    server_->take(UniqueFd(ends[0]));
    client.socket.reset(ends[1]);
  }
  static void raw(const Client& client, std::span<const std::uint8_t> bytes, unsigned fds) {
    if (!client.socket) return;
    std::vector<UniqueFd> owned;
    if ((fds & 1) != 0) owned.emplace_back(code_image());
    if ((fds & 2) != 0) owned.emplace_back(::open("/dev/zero", O_RDWR | O_CLOEXEC));
    if ((fds & 4) != 0) owned.emplace_back(::memfd_create("empty", MFD_CLOEXEC));
    if ((fds & 8) != 0)
      for (int i = 0; i < 20; ++i) owned.emplace_back(::dup(STDERR_FILENO));
    std::vector<int> numbers;
    for (const auto& fd : owned) numbers.push_back(fd.get());
    iovec part{.iov_base = const_cast<std::uint8_t*>(bytes.data()), .iov_len = bytes.size()};
    alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int) * 32)> control{};
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    if (!numbers.empty()) {
      message.msg_control = control.data();
      message.msg_controllen = CMSG_SPACE(sizeof(int) * numbers.size());
      cmsghdr* header = CMSG_FIRSTHDR(&message);
      header->cmsg_level = SOL_SOCKET;
      header->cmsg_type = SCM_RIGHTS;
      header->cmsg_len = CMSG_LEN(sizeof(int) * numbers.size());
      std::memcpy(CMSG_DATA(header), numbers.data(), sizeof(int) * numbers.size());
    }
    [[maybe_unused]] const auto sent =
        ::sendmsg(client.socket.get(), &message, MSG_NOSIGNAL | MSG_DONTWAIT);
  }
  void request(const Client& client, Input& input) {
    Message message{};
    const auto type = input.take<std::uint8_t>();
    message.header = {.magic = MessageHeader::expected_magic,
                      .major = MessageHeader::protocol_major,
                      .minor = MessageHeader::protocol_minor,
                      .type = static_cast<MessageType>(type % 24),
                      .reserved = 0,
                      .sequence = ++sequence_};
    const auto fds = input.take<std::uint8_t>();
    const auto payload = input.take_bytes(input.take<std::uint8_t>() % message.payload.size());
    if (!payload.empty()) std::memcpy(message.payload.data(), payload.data(), payload.size());
    raw(client, {reinterpret_cast<const std::uint8_t*>(&message), sizeof message}, fds);
  }
  static int region(const Client& client, std::uint8_t index) {
    return client.regions.empty() ? -1 : client.regions[index % client.regions.size()].get();
  }
  static void packet(int fd, Input& input) {
    const auto slot = input.take<std::uint8_t>() % 16;
    const auto bytes = input.take_bytes(sizeof(LeasePacket));
    const auto offset =
        region_payload_offset + offsetof(LeaseRing, slots) + slot * sizeof(LeasePacket);
    [[maybe_unused]] auto written =
        ::pwrite(fd, bytes.data(), bytes.size(), static_cast<off_t>(offset));
    const std::uint64_t index = slot + 1U;
    written =
        ::pwrite(fd, &index, sizeof index, region_payload_offset + offsetof(LeaseRing, written));
  }
  /// One page with a kernel descriptor whose entry point is inside.
  static UniqueFd code_image() {
    UniqueFd fd(::memfd_create("code", MFD_CLOEXEC | MFD_ALLOW_SEALING));
    std::array<std::uint8_t, 4096> image{};
    image[17] = 1;  // entry offset 256
    [[maybe_unused]] const auto written = ::pwrite(fd.get(), image.data(), image.size(), 0);
    return fd;
  }
  void serve_once() {
    for (int i = 0; i < 4; ++i)
      if (!server_->turn(0)) finding("the server has ended");
    device_->run_queues();
  }
  void take_replies() {
    for (auto& client : clients_) {
      while (client.socket) {
        auto reply = receive_message(client.socket.get());
        if (!reply) client = {};
        if (!reply || !*reply) break;
        for (auto& fd : (*reply)->fds) {
          if (client.regions.size() >= max_regions) client.regions.erase(client.regions.begin());
          client.regions.push_back(std::move(fd));
        }
      }
    }
  }
  [[nodiscard]] bool left() const {
    if (service_->status().workers != 0 || device_->memory_objects() != objects_) return true;
    for (const auto& stream : service_->streams())
      if (stream.lease != 0 || stream.draining != 0) return true;
    return false;
  }

  test::FakeDevice* device_;
  std::unique_ptr<Service> service_;
  std::optional<ControlServer> server_;
  std::size_t objects_ = 0;
  std::array<Client, max_clients> clients_;
  std::uint32_t sequence_ = 0;
};

}  // namespace
}  // namespace eclip::fuzz

extern "C" int LLVMFuzzerInitialize(int*, char***) {
  spdlog::set_level(spdlog::level::off);
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  // One world for all: making the pool takes longer than most inputs. end() leaves it as it was.
  static auto& world = *new eclip::fuzz::World;
  eclip::fuzz::Input input(data, size);
  for (std::size_t i = 0; i < eclip::fuzz::max_operations && !input.empty(); ++i) world.step(input);
  world.end();
  return 0;
}
