// Runs a few requests of an empty kernel where eclipd's plan says, and prints what the scheduler
// did.
//
//   g++ -std=c++17 hello_scheduler.cpp $(pkg-config --cflags --libs eclip) -o hello_scheduler
//   ECLIP_PROFILE=vgg19-b8 ./hello_scheduler
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
  constexpr int requests = 5;
  constexpr int kernels = 10;
  // The empty kernel reads no arguments; a real one would find them here.
  const eclip::Memory arguments = connection.allocate(4096);
  std::memset(arguments.host<char>(), 0, 64);
  const auto image = empty_kernel_image();
  const std::uint32_t code = connection.load_code(image.data(), image.size());

  eclip_dispatch dispatch{};
  dispatch.kernel = connection.register_kernel(code, 0, 64);
  for (std::size_t i = 0; i < 3; ++i) dispatch.grid_size[i] = dispatch.workgroup_size[i] = 1;
  dispatch.grid_size[0] = 64 * connection.gpu().cu_count;
  dispatch.workgroup_size[0] = 64;
  dispatch.kernarg_memory = arguments.handle();

  eclip::WorkerScheduler scheduler = connection.scheduler();
  eclip::WorkerProgram program = scheduler.create_program();
  for (int i = 0; i < requests; ++i) {
    program.begin_request();
    for (int kernel = 0; kernel < kernels; ++kernel) program.dispatch(dispatch);
    const std::uint64_t request = program.end_request();
    if (!program.wait(request, std::chrono::seconds(5))) {
      std::fprintf(stderr, "request %d did not complete within 5 s: %s\n", i, eclip_last_error());
      return 1;
    }
  }
  const eclip_scheduler_state state = scheduler.describe();
  std::printf("%" PRIu64 " requests: %" PRIu64 " kernels went as plan %" PRIu64 " says, %" PRIu64
              " did not; %" PRIu64 " changes of stream\n",
              state.requests, state.scheduled, state.plan_epoch, state.bypassed, state.switches);
  return 0;
}

}  // namespace

int main() {
  try {
    auto connection = eclip::Connection::try_open();
    return connection ? run(*connection) : 0;  // libeclip has said that eclipd is not running
  } catch (const std::exception& error) {
    std::fprintf(stderr, "hello_scheduler: %s\n", error.what());
    return 1;
  }
}
