// Connecting to eclipd, and leaving it.
#include <cstdio>
#include <cstdlib>
#include <string>

#include "ipc/testpoint.h"
#include "libeclip/context.h"
#include "libeclip/errors.h"
#include "libeclip/versioned_struct.h"

#ifndef ECLIP_VERSION
#error "ECLIP_VERSION comes from the build: the project's version"
#endif

namespace eclip {
namespace {

constexpr std::chrono::milliseconds default_timeout{1000};

void say(const eclip_connect_options& options, const std::string& line) {
  if (options.log != nullptr)
    options.log(options.log_user, line.c_str());
  else
    std::fprintf(stderr, "%s\n", line.c_str());
}

/// Reports why connecting failed; the absence of eclipd is also said aloud, once per process.
int report_no_connection(const Error& error, const eclip_connect_options& options,
                         const std::filesystem::path& path) {
  if (error.code != Errc::gone) return report(error);
  static std::atomic_flag said;
  if (!said.test_and_set())
    say(options, "eclip: eclipd is not running (nobody listens on " + path.string() +
                     "); continuing without ECLIP");
  return report(ENOTCONN, error.message());
}

int connect(const eclip_connect_options* given, eclip_context** context) {
  if (context == nullptr) return report(EINVAL, "the place for the context is NULL");
  *context = nullptr;
  eclip_connect_options options{};
  if (given != nullptr) {
    if (const int failed = read_struct(given, options); failed != 0) return failed;
  }
  const auto timeout =
      options.timeout_ms == 0 ? default_timeout : std::chrono::milliseconds(options.timeout_ms);
  const std::filesystem::path path =
      options.socket_path != nullptr ? options.socket_path : socket_path_from_environment();
  auto socket = connect_control(path, timeout);
  if (!socket) return report_no_connection(socket.error(), options, path);
  ECLIP_TESTPOINT("connected");
  auto made = std::make_unique<eclip_context>(std::move(*socket), timeout);
  Hello hello{};
  hello.worker_name.assign(options.worker_name != nullptr ? options.worker_name
                                                          : program_invocation_short_name);
  const char* profile = options.profile != nullptr ? options.profile : std::getenv("ECLIP_PROFILE");
  if (profile != nullptr) hello.profile.assign(profile);
  if (profile != nullptr && hello.profile.str() != profile)
    return report(EINVAL, "the profile's name '" + std::string(profile) + "' is too long");
  hello.requests_per_s = options.requests_per_s;
  if (auto introduced = made->introduce(hello); !introduced) {
    if (introduced.error().code == Errc::gone)
      return report(ENOTCONN, "eclipd on " + path.string() + " closed the connection at once");
    return report(introduced.error());
  }
  *context = made.release();
  return 0;
}

void describe_gpu(const Board& board, eclip_gpu& gpu) {
  gpu.cu_count = board.gpu_cu_count;
  static_assert(sizeof gpu.name == sizeof board.gpu_name);
  std::copy(board.gpu_name.begin(), board.gpu_name.end() - 1, std::begin(gpu.name));
  gpu.stream_count = board.stream_count;
  gpu.device_time_rate =
      static_cast<double>(board.device_time_rate.load(std::memory_order_relaxed)) / 0x1p32;
}

}  // namespace
}  // namespace eclip

const char* eclip_version(void) {
  return ECLIP_VERSION;
}

int eclip_connect(const struct eclip_connect_options* options, eclip_context** context) {
  return eclip::guarded([&] { return eclip::connect(options, context); });
}

void eclip_disconnect(eclip_context* context) {
  // Not an int to the caller, but what the destructor does may throw all the same.
  static_cast<void>(eclip::guarded([&] {
    delete context;
    return 0;
  }));
}

int eclip_gpu_describe(eclip_context* context, struct eclip_gpu* gpu) {
  return eclip::guarded([&] {
    if (context == nullptr) return eclip::report(EINVAL, "the context is NULL");
    if (const int failed = eclip::check_struct_size(gpu); failed != 0) return failed;
    eclip_gpu described{};
    eclip::describe_gpu(context->board(), described);
    eclip::write_struct(described, gpu);
    return 0;
  });
}
