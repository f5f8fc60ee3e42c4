// Recording: what each dispatch took stands in a file, and packets are as they were but for the
// barrier bit and a signal.
#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>
#include <thread>

#include "tests/unit/libeclip/worker.h"

namespace eclip::test {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

/// The fake GPU's clock has ticks of 40 ns.
class Recording : public Worker {
 protected:
  explicit Recording(FakeDaemon::Behaviour behaviour = {}) : Worker(std::move(behaviour)) {
    std::string name = (fs::temp_directory_path() / "eclip-record-XXXXXX").string();
    directory_ = ::mkdtemp(name.data());
    ::setenv("ECLIP_RECORD", directory_.c_str(), 1);
    connect();
  }
  ~Recording() override {
    ::unsetenv("ECLIP_RECORD");
    fs::remove_all(directory_);
  }
  [[nodiscard]] std::string recording() const {
    std::string all;
    for (const auto& entry : fs::directory_iterator(directory_)) {
      std::ostringstream text;
      text << std::ifstream(entry.path()).rdbuf();
      all += text.str();
    }
    return all;
  }
  LeasePacket packet(std::size_t number) { return daemon.ring(0).slots[number].packet; }
  void disconnect() {
    eclip_disconnect(context);
    context = nullptr;
  }

  fs::path directory_;
};

TEST_F(Recording, StatesGpuWorkerLeaseAndTimesInNanoseconds) {
  eclip_lease* lease = acquire();
  eclip_dispatch dispatch = with_signal(create_signal());
  dispatch.grid_size[1] = 12;
  dispatch.workgroup_size[0] = 64;
  dispatch.group_segment_bytes = 512;
  const eclip_token token = submit(lease, dispatch);
  daemon.complete(use_of(token), 100, 250);
  ASSERT_EQ(eclip_wait(context, token, deadline_ns), 0);
  EXPECT_THAT(recording(), HasSubstr("eclip-record 1\ngpu "));
  EXPECT_THAT(recording(), HasSubstr("\nworker test worker\n"));
  EXPECT_THAT(recording(), HasSubstr("\ndispatch 101 7 1 12 1 64 1 1 512 4000 10000\n"));
  EXPECT_THAT(recording(), ::testing::Not(HasSubstr("\nend\n")));
  disconnect();
  EXPECT_THAT(recording(), HasSubstr("\nend\n"));
}

TEST_F(Recording, EachDispatchWaitsForTheOneBeforeAndHasASignal) {
  eclip_lease* lease = acquire();
  EXPECT_EQ(submit(lease, some_dispatch()).generation, 0U) << "the signal is not the worker's";
  submit(lease, some_dispatch());
  EXPECT_EQ(packet(0).flags, LeasePacket::flag_barrier);
  EXPECT_NE(packet(0).completion.generation, 0U);
  EXPECT_NE(packet(0).completion.signal, packet(1).completion.signal);
}

TEST_F(Recording, BarriersStayAsTheyAre) {
  eclip_lease* lease = acquire();
  eclip_barrier barrier{};
  barrier.struct_size = sizeof barrier;
  ASSERT_EQ(eclip_submit_barrier(lease, &barrier, nullptr), 0);
  EXPECT_EQ(packet(0).flags, 0);
  EXPECT_EQ(packet(0).completion.generation, 0U);
}

TEST_F(Recording, TimesAreReadBeforeTheSignalIsUsedAgain) {
  eclip_lease* lease = acquire();
  const std::uint32_t signal = create_signal();
  daemon.complete(use_of(submit(lease, with_signal(signal))), 10, 20);
  // Nobody waited for the first use.
  const eclip_token second = submit(lease, with_signal(signal));
  daemon.complete(use_of(second), 30, 50);
  ASSERT_EQ(eclip_wait(context, second, deadline_ns), 0);
  EXPECT_THAT(recording(), HasSubstr(" 400 800\ndispatch 101 7 1 1 1 1 1 1 0 1200 2000\n"));
}

TEST_F(Recording, PacketsStandInTheOrderOfSubmission) {
  eclip_lease* lease = acquire();
  const eclip_token first = submit(lease, with_signal(create_signal()));
  const eclip_token second = submit(lease, with_signal(create_signal()));
  daemon.complete(use_of(second), 3, 4);
  ASSERT_EQ(eclip_wait(context, second, deadline_ns), 0);
  EXPECT_THAT(recording(), ::testing::Not(HasSubstr("dispatch")));
  daemon.complete(use_of(first), 1, 2);
  ASSERT_EQ(eclip_wait(context, first, deadline_ns), 0);
  EXPECT_THAT(recording(), HasSubstr(" 40 80\ndispatch 101 7 1 1 1 1 1 1 0 120 160\n"));
}

TEST_F(Recording, AsManyDispatchesAreInFlightAsThereAreSignals) {
  eclip_lease* lease = acquire();
  const eclip_dispatch dispatch = some_dispatch();
  int submitted = 0;
  while (eclip_submit_dispatch(lease, &dispatch, nullptr) == 0) ++submitted;
  EXPECT_EQ(submitted, 256);
  EXPECT_EQ(eclip_submit_dispatch(lease, &dispatch, nullptr), -EAGAIN);
  EXPECT_THAT(eclip_last_error(), HasSubstr("can be recorded"));
  daemon.complete(packet(0).completion);
  EXPECT_EQ(eclip_submit_dispatch(lease, &dispatch, nullptr), 0) << eclip_last_error();
}

TEST_F(Recording, APacketThatWasDroppedIsSaidToBe) {
  eclip_lease* lease = acquire();
  const eclip_token token = submit(lease, with_signal(create_signal()));
  daemon.cancel(use_of(token));
  EXPECT_EQ(eclip_wait(context, token, deadline_ns), -ECANCELED);
  disconnect();
  EXPECT_THAT(recording(), HasSubstr("\ndropped 101 7\n"));
}

TEST_F(Recording, AnImageHasAHashAndItsKernelItsRegisters) {
  std::array<std::byte, 128> image{};
  image[64 + 48] = std::byte{5};  // granules of vector registers, less one
  std::uint32_t code = 0;
  std::uint32_t kernel = 0;
  ASSERT_EQ(eclip_code_load(context, image.data(), image.size(), &code), 0);
  ASSERT_EQ(eclip_kernel_register(context, code, 64, 0, &kernel), 0);
  disconnect();
  EXPECT_THAT(recording(), ::testing::ContainsRegex("kernel [0-9]+ [0-9a-f]+ 64 24\n"));
}

TEST_F(Recording, EachConnectionHasAFileOfItsOwn) {
  disconnect();
  connect();
  std::set<fs::path> files;
  for (const auto& entry : fs::directory_iterator(directory_)) files.insert(entry.path());
  EXPECT_EQ(files.size(), 2U);
}

class RecordingOnTwoThreads : public Recording {
 protected:
  RecordingOnTwoThreads() : Recording({.run_packets = true}) {}
};

TEST_F(RecordingOnTwoThreads, EachDispatchStandsOnce) {
  constexpr int dispatches = 300;
  const auto work = [&](eclip_lease* lease, std::uint32_t signal) {
    for (int i = 0; i < dispatches; ++i) {
      const eclip_dispatch dispatch = i % 4 == 0 ? with_signal(signal) : some_dispatch();
      eclip_token token{};
      int result = -EAGAIN;
      while (result == -EAGAIN) result = eclip_submit_dispatch(lease, &dispatch, &token);
      ASSERT_EQ(result, 0) << eclip_last_error();
      if (i % 4 == 0) {
        ASSERT_EQ(eclip_wait(context, token, deadline_ns), 0) << eclip_last_error();
      }
    }
  };
  const std::array<eclip_lease*, 2> leases{acquire(), acquire()};
  const std::array<std::uint32_t, 2> signals{create_signal(), create_signal()};
  std::thread other([&] { work(leases[0], signals[0]); });
  work(leases[1], signals[1]);
  other.join();
  // The last of each have been submitted after its last wait.
  for (std::size_t i = 0; i < 2; ++i)
    ASSERT_EQ(eclip_wait(context, submit(leases[i], with_signal(signals[i])), deadline_ns), 0);
  disconnect();
  const std::string text = recording();
  int lines = 0;
  for (std::size_t at = 0; (at = text.find("\ndispatch ", at)) != std::string::npos; ++at) ++lines;
  EXPECT_EQ(lines, 2 * (dispatches + 1));
}

class NoRecording : public Worker {};

TEST_F(NoRecording, AnythingButADirectoryIsAnErrorOfConnect) {
  ::setenv("ECLIP_RECORD", "/nonexistent", 1);
  const std::string path = daemon.path();
  const eclip_connect_options options = options_for(path);
  EXPECT_EQ(eclip_connect(&options, &context), -ENOENT);
  EXPECT_THAT(eclip_last_error(), HasSubstr("ECLIP_RECORD=/nonexistent"));
  ::unsetenv("ECLIP_RECORD");
}

TEST_F(NoRecording, PacketsStayAsTheyAre) {
  connect();
  eclip_lease* lease = acquire();
  submit(lease, some_dispatch());
  EXPECT_EQ(daemon.ring(0).slots[0].packet.flags, 0);
  EXPECT_EQ(daemon.ring(0).slots[0].packet.completion.generation, 0U);
}

TEST_F(NoRecording, TheCusVariableChoosesTheStream) {
  connect();
  ::setenv("ECLIP_CUS", "30", 1);
  eclip_lease_request request{};
  request.struct_size = sizeof request;
  request.stream = 3;
  eclip_lease* lease = nullptr;
  EXPECT_EQ(eclip_lease_acquire(context, &request, &lease), 0) << eclip_last_error();
  const auto asked = payload_of<LeaseAcquire>(daemon.requests(MessageType::lease_acquire).back());
  EXPECT_EQ(asked.stream, ECLIP_ANY_STREAM);
  EXPECT_EQ(asked.cu_count, 30U);
  ::setenv("ECLIP_CUS", "half", 1);
  EXPECT_EQ(eclip_lease_acquire(context, &request, &lease), -EINVAL);
  EXPECT_THAT(eclip_last_error(), HasSubstr("ECLIP_CUS is \"half\""));
  ::unsetenv("ECLIP_CUS");
}

}  // namespace
}  // namespace eclip::test
