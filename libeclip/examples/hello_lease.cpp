// Leases a stream from eclipd, runs an empty kernel on it a few times and prints how long that
// took.
//
//   g++ -std=c++17 hello_lease.cpp $(pkg-config --cflags --libs eclip) -o hello_lease
//
// Without eclipd it says so and ends with 0, as a program that can do without ECLIP does.
#include <cinttypes>
#include <cstdio>
#include <cstring>
#include <eclip/eclip.hpp>

namespace {

/// A code image with one kernel that does nothing: a kernel descriptor (AMDHSA code object v3) for
/// gfx9 and, at the next instruction-cache line, its code.
std::array<std::byte, 320> empty_kernel_image() {
  constexpr std::size_t entry_offset = 256;
  constexpr std::size_t entry_field = 16;  // kernel_code_entry_byte_offset, from the descriptor
  constexpr std::uint32_t s_endpgm = 0xbf810000;
  std::array<std::byte, 320> image{};
  const std::int64_t entry = entry_offset;
  std::memcpy(image.data() + entry_field, &entry, sizeof entry);
  std::memcpy(image.data() + entry_offset, &s_endpgm, sizeof s_endpgm);
  return image;
}

int run(eclip::Connection& connection) {
  const eclip_gpu gpu = connection.gpu();
  eclip::Lease lease = connection.lease_any(1);
  const eclip_lease_state state = lease.describe();
  std::printf("%s: stream %" PRIu32 " of %" PRIu32 ", %" PRIu32 " of %" PRIu32 " CUs\n", gpu.name,
              state.stream, gpu.stream_count, state.cu_count, gpu.cu_count);

  // The empty kernel reads no arguments; a real one would find them here.
  const eclip::Memory arguments = connection.allocate(4096);
  std::memset(arguments.host<char>(), 0, 64);
  const auto image = empty_kernel_image();
  const std::uint32_t code = connection.load_code(image.data(), image.size());
  const eclip::Signal signal = connection.create_signal();

  eclip_dispatch dispatch{};
  dispatch.kernel = connection.register_kernel(code, 0, 64);
  dispatch.flags = ECLIP_PACKET_BARRIER | ECLIP_PACKET_SIGNAL;
  dispatch.signal = signal.id();
  for (std::size_t i = 0; i < 3; ++i) dispatch.grid_size[i] = dispatch.workgroup_size[i] = 1;
  dispatch.grid_size[0] = 64 * state.cu_count;
  dispatch.workgroup_size[0] = 64;
  dispatch.kernarg_memory = arguments.handle();

  for (int i = 0; i < 5; ++i) {
    eclip::Token token{};
    if (!lease.try_submit(dispatch, &token) || !connection.wait(token, std::chrono::seconds(5))) {
      std::fprintf(stderr, "dispatch %d did not complete within 5 s\n", i);
      return 1;
    }
    const auto times = connection.times(token);
    std::printf("dispatch %d: %.3f us on the GPU\n", i,
                std::chrono::duration<double, std::micro>(times.end - times.start).count());
  }
  return 0;
}

}  // namespace

int main() {
  try {
    auto connection = eclip::Connection::try_open();
    return connection ? run(*connection) : 0;  // libeclip has said that eclipd is not running
  } catch (const std::exception& error) {
    std::fprintf(stderr, "hello_lease: %s\n", error.what());
    return 1;
  }
}
