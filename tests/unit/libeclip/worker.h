// What most tests of libeclip start with: a fake daemon and a connection to it.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <string>

#include "eclip/eclip.h"
#include "tests/fake/eventually.h"
#include "tests/unit/libeclip/fake_daemon.h"

namespace eclip::test {

/// Bounds every wait of the tests; never reached where the code is right.
inline constexpr std::chrono::seconds deadline{20};
inline constexpr std::uint64_t deadline_ns = 20'000'000'000;

inline eclip_connect_options options_for(const std::string& path, std::uint32_t timeout_ms = 5000) {
  eclip_connect_options options{};
  options.struct_size = sizeof options;
  options.timeout_ms = timeout_ms;
  options.socket_path = path.c_str();
  options.worker_name = "test worker";
  return options;
}

class Worker : public ::testing::Test {
 protected:
  explicit Worker(FakeDaemon::Behaviour behaviour = {}) : daemon(std::move(behaviour)) {}
  ~Worker() override { eclip_disconnect(context); }
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;

  void connect() {
    const std::string path = daemon.path();
    const eclip_connect_options options = options_for(path);
    ASSERT_EQ(eclip_connect(&options, &context), 0) << eclip_last_error();
  }
  eclip_lease* acquire(std::uint32_t cu_count = 15) {
    eclip_lease_request request{};
    request.struct_size = sizeof request;
    request.stream = ECLIP_ANY_STREAM;
    request.cu_count = cu_count;
    eclip_lease* lease = nullptr;
    EXPECT_EQ(eclip_lease_acquire(context, &request, &lease), 0) << eclip_last_error();
    return lease;
  }
  std::uint32_t create_signal() {
    std::uint32_t signal = 0;
    EXPECT_EQ(eclip_signal_create(context, &signal), 0) << eclip_last_error();
    return signal;
  }

  static eclip_dispatch some_dispatch() {
    eclip_dispatch dispatch{};
    dispatch.struct_size = sizeof dispatch;
    dispatch.kernel = 7;
    for (int i = 0; i < 3; ++i) dispatch.grid_size[i] = dispatch.workgroup_size[i] = 1;
    return dispatch;
  }
  static eclip_dispatch with_signal(std::uint32_t signal) {
    eclip_dispatch dispatch = some_dispatch();
    dispatch.flags = ECLIP_PACKET_SIGNAL;
    dispatch.signal = signal;
    return dispatch;
  }
  static eclip_token submit(eclip_lease* lease, const eclip_dispatch& dispatch) {
    eclip_token token{};
    EXPECT_EQ(eclip_submit_dispatch(lease, &dispatch, &token), 0) << eclip_last_error();
    return token;
  }
  static SignalUse use_of(eclip_token token) { return {token.signal, token.generation}; }

  FakeDaemon daemon;
  eclip_context* context = nullptr;
};

}  // namespace eclip::test
