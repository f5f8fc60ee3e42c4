// A small worker for tests that kill it, or eclipd under it: `visit` goes once through all that a
// worker does, `plan` does with a scheduler, `queue` does with a lease for which it waits in the
// queue, `stay` works on, attaching again when eclipd ends, until SIGTERM.
//
// Exit status: 0 all results right, 1 a result is wrong or lost, 2 another error, 3 eclipd ended.
#include <signal.h>

#include <atomic>
#include <cstdio>
#include <eclip/session.hpp>
#include <string_view>
#include <thread>

#include "tests/integration/eclipd/running_eclipd.h"

namespace eclip::test {
namespace {

constexpr std::chrono::seconds patience{20};
constexpr int burst = 20;
/// The stream that a test keeps from `queue`.
constexpr std::uint32_t queue_stream = 6;

std::atomic<bool> stop = false;

/// A lease and a chain of kernels on it; each request is a burst whose value is checked.
class Model {
 public:
  Model(Connection& connection, Lease lease)
      : connection_(connection),
        lease_(std::move(lease)),
        kernel_(connection, 100),
        signal_(connection.create_signal()) {}

  /// Throws ApiError; false when the acknowledged value is wrong.
  bool run() {
    Token token{};
    for (int i = 0; i < burst; ++i) {
      const bool last = i + 1 == burst;
      const auto dispatch = kernel_.next(
          salt_++, ECLIP_PACKET_BARRIER | (last ? ECLIP_PACKET_SIGNAL : 0), signal_.id());
      while (!lease_.try_submit(dispatch, &token)) std::this_thread::yield();
    }
    if (!connection_.wait(token, patience)) throw ApiError(ETIMEDOUT, "a burst");
    return kernel_.value() == kernel_.expected();
  }
  bool renew() { return lease_.renew(); }

 private:
  Connection& connection_;
  Lease lease_;
  MixKernel kernel_;
  Signal signal_;
  std::uint32_t salt_ = 1;
};

int visit() {
  Connection connection;
  Model model(connection, connection.lease_any(15));
  for (int i = 0; i < 3; ++i)
    if (!model.run()) return 1;
  return 0;
}

int plan() {
  Connection connection;
  WorkerScheduler scheduler = connection.scheduler();
  WorkerProgram program = scheduler.create_program();
  MixKernel kernel(connection, 100);
  std::uint32_t salt = 1;
  for (int request = 0; request < 3; ++request) {
    program.begin_request();
    for (int i = 0; i < burst; ++i) program.dispatch(kernel.next(salt++, 0, 0));
    if (!program.wait(program.end_request(), patience)) throw ApiError(ETIMEDOUT, "a request");
    if (kernel.value() != kernel.expected()) return 1;
  }
  return 0;
}

int queue() {
  Connection connection;
  eclip_lease_request request{};
  request.stream = queue_stream;
  request.wait_ms = std::chrono::milliseconds(patience).count();
  request.duration_ms = std::chrono::milliseconds(patience).count();
  Model model(connection, connection.lease(request));
  return model.run() && model.renew() && model.run() ? 0 : 1;
}

int stay() {
  Session<Model> session({}, [](Connection& connection) {
    return std::make_unique<Model>(connection, connection.lease_any(15));
  });
  bool right = true;
  bool said = false;
  while (!stop) {
    const Outcome outcome = session.run([&](Model& model) { right = model.run() && right; });
    if (outcome == Outcome::without_eclipd)
      session.wait_until_attached(std::chrono::milliseconds(10));
    if (outcome != Outcome::done || said) continue;
    said = true;
    std::puts("running");
    std::fflush(stdout);
  }
  const auto& counts = session.counts();
  std::printf("%llu %llu %llu\n", static_cast<unsigned long long>(counts.done),
              static_cast<unsigned long long>(counts.not_done),
              static_cast<unsigned long long>(counts.reattachments));
  return right ? 0 : 1;
}

}  // namespace
}  // namespace eclip::test

int main(int argc, char** argv) {
  ::signal(SIGTERM, [](int) { eclip::test::stop = true; });
  try {
    const std::string_view kind = argc == 2 ? argv[1] : "";
    if (kind == "visit") return eclip::test::visit();
    if (kind == "plan") return eclip::test::plan();
    if (kind == "queue") return eclip::test::queue();
    if (kind == "stay") return eclip::test::stay();
    std::fprintf(stderr, "usage: test_worker visit|plan|queue|stay\n");
    return 2;
  } catch (const eclip::ApiError& error) {
    std::fprintf(stderr, "%s\n", error.what());
    const int code = error.code().value();
    return code == ECONNRESET || code == ENOTCONN ? 3 : 2;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 2;
  }
}
