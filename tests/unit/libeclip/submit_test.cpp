// Submitting: what stands in the ring afterwards, and what is refused.
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstddef>
#include <functional>
#include <set>
#include <thread>

#include "libeclip/signal_table.h"
#include "tests/unit/libeclip/worker.h"

namespace eclip::test {
namespace {

using ::testing::HasSubstr;

class Submit : public Worker {
 protected:
  /// A slot as bytes, found by the layout's numbers and not by its types: after 64 bytes of region
  /// header and two cache lines of counters, 64 bytes each. When this fails, bump the version.
  std::array<std::uint8_t, 64> slot(std::size_t number) {
    std::array<std::uint8_t, 64> bytes{};
    std::memcpy(bytes.data(), daemon.ring_region(0).bytes().data() + 64 + 128 + number * 64, 64);
    return bytes;
  }
  std::uint64_t written() {
    std::uint64_t count = 0;
    std::memcpy(&count, daemon.ring_region(0).bytes().data() + 64, sizeof count);
    return count;
  }
};

TEST_F(Submit, WritesADispatchByteForByte) {
  connect();
  eclip_lease* lease = acquire();
  const std::uint32_t signal = create_signal();
  eclip_dispatch dispatch{};
  dispatch.struct_size = sizeof dispatch;
  dispatch.flags = ECLIP_PACKET_BARRIER | ECLIP_PACKET_SIGNAL;
  dispatch.kernel = 0x11121314;
  dispatch.signal = signal;
  const std::array<std::uint32_t, 3> grid{0x21222324, 0x31323334, 0x41424344};
  std::copy(grid.begin(), grid.end(), dispatch.grid_size);
  dispatch.workgroup_size[0] = 0x40;
  dispatch.workgroup_size[1] = 0x04;
  dispatch.workgroup_size[2] = 0x02;
  dispatch.group_segment_bytes = 0x51525354;
  dispatch.kernarg_memory = 0x61626364;
  dispatch.kernarg_offset = 0x7172737475767780;
  const eclip_token token = submit(lease, dispatch);
  EXPECT_EQ(token.signal, signal);
  EXPECT_EQ(token.generation, 1U);
  EXPECT_EQ(written(), 1U);
  const auto index = static_cast<std::uint8_t>(signal);
  EXPECT_THAT(slot(0), ::testing::ElementsAreArray(std::array<std::uint8_t, 64>{
                           1,     1,    0,    0,                             // type, flags
                           index, 0,    0,    0,    1,    0,    0,    0,     // completion
                           0,     0,    0,    0,                             // reserved
                           0x14,  0x13, 0x12, 0x11,                          // kernel
                           0x24,  0x23, 0x22, 0x21, 0x34, 0x33, 0x32, 0x31,  // grid
                           0x44,  0x43, 0x42, 0x41,                          //
                           0x40,  0,    0x04, 0,    0x02, 0,    0,    0,     // workgroup
                           0x54,  0x53, 0x52, 0x51,                          // group segment
                           0x64,  0x63, 0x62, 0x61,                          // kernarg memory
                           0x80,  0x77, 0x76, 0x75, 0x74, 0x73, 0x72, 0x71,  // kernarg offset
                           0,     0,    0,    0,    0,    0,    0,    0}));
}

TEST_F(Submit, WritesABarrierByteForByte) {
  connect();
  eclip_lease* lease = acquire();
  const std::uint32_t signal = create_signal();
  const eclip_token first = submit(lease, with_signal(signal));
  eclip_barrier barrier{};
  barrier.struct_size = sizeof barrier;
  barrier.kind = ECLIP_BARRIER_OR;
  barrier.dependency_count = 3;
  barrier.dependencies[0] = first;
  barrier.dependencies[1] = {17, 0};  // none
  barrier.dependencies[2] = first;
  barrier.dependencies[3] = {99, 99};  // beyond the count
  eclip_token token{99, 99};
  ASSERT_EQ(eclip_submit_barrier(lease, &barrier, &token), 0) << eclip_last_error();
  EXPECT_EQ(token.generation, 0U);
  std::array<std::uint8_t, 64> expected{3};
  for (const std::size_t dependency : {0U, 2U}) {
    expected[16 + dependency * 8] = static_cast<std::uint8_t>(signal);
    expected[16 + dependency * 8 + 4] = 1;
  }
  EXPECT_THAT(slot(1), ::testing::ElementsAreArray(expected));
  barrier.kind = ECLIP_BARRIER_AND;
  ASSERT_EQ(eclip_submit_barrier(lease, &barrier, nullptr), 0);
  EXPECT_EQ(slot(2)[0], 2);
}

TEST_F(Submit, SaysWhenTheRingIsFullAndTakesMoreWhenThereIsRoom) {
  connect();
  eclip_lease* lease = acquire();
  const std::uint32_t signal = create_signal();
  for (int i = 0; i < 1024; ++i) submit(lease, some_dispatch());
  const eclip_dispatch dispatch = with_signal(signal);
  eclip_token token{};
  EXPECT_EQ(eclip_submit_dispatch(lease, &dispatch, &token), -EAGAIN);
  EXPECT_EQ(written(), 1024U);
  daemon.ring(0).taken = 1;
  // The refused packet has used up no generation.
  EXPECT_EQ(submit(lease, dispatch).generation, 1U);
  EXPECT_EQ(written(), 1025U);
}

TEST_F(Submit, RefusesASignalThatIsStillInUse) {
  connect();
  eclip_lease* lease = acquire();
  const std::uint32_t signal = create_signal();
  const eclip_dispatch dispatch = with_signal(signal);
  const eclip_token first = submit(lease, dispatch);
  EXPECT_EQ(eclip_submit_dispatch(lease, &dispatch, nullptr), -EBUSY);
  daemon.forward(use_of(first));
  EXPECT_EQ(eclip_submit_dispatch(lease, &dispatch, nullptr), -EBUSY);
  EXPECT_EQ(eclip_signal_destroy(context, signal), -EBUSY);
  daemon.complete(use_of(first));
  EXPECT_EQ(submit(lease, dispatch).generation, 2U);
  EXPECT_EQ(written(), 2U);
  // The first use stays complete while the second is forwarded, value first.
  daemon.state().signals[signal].value = 1;
  EXPECT_EQ(eclip_is_complete(context, first), 1);
}

TEST_F(Submit, SkipsGenerationZeroWhenGenerationsWrap) {
  daemon.state().signals[0].generation = UINT32_MAX - 1;
  connect();
  eclip_lease* lease = acquire();
  ASSERT_EQ(create_signal(), 0U);
  const eclip_token last = submit(lease, with_signal(0));
  EXPECT_EQ(last.generation, UINT32_MAX);
  daemon.complete(use_of(last));
  const eclip_token wrapped = submit(lease, with_signal(0));
  EXPECT_EQ(wrapped.generation, 1U);
  EXPECT_EQ(eclip_is_complete(context, last), 1);
  EXPECT_EQ(eclip_is_complete(context, wrapped), 0);
  daemon.complete(use_of(wrapped));
  EXPECT_EQ(eclip_is_complete(context, last), 1);
  EXPECT_EQ(eclip_is_complete(context, wrapped), 1);
}

TEST_F(Submit, TakesBackAGenerationAtTheWrapToo) {
  daemon.state().signals[0].generation = UINT32_MAX;
  connect();
  eclip_lease* lease = acquire();
  ASSERT_EQ(create_signal(), 0U);
  for (int i = 0; i < 1024; ++i) submit(lease, some_dispatch());
  const eclip_dispatch dispatch = with_signal(0);
  EXPECT_EQ(eclip_submit_dispatch(lease, &dispatch, nullptr), -EAGAIN);
  daemon.ring(0).taken = 1;
  EXPECT_EQ(submit(lease, dispatch).generation, 1U);
}

TEST_F(Submit, HandsOutEachSignalOnce) {
  connect();
  std::set<std::uint32_t> signals;
  for (int i = 0; i < 1024; ++i) signals.insert(create_signal());
  EXPECT_EQ(signals.size(), 1024U);
  EXPECT_LT(*signals.rbegin(), 1024U);
  std::uint32_t signal = 0;
  EXPECT_EQ(eclip_signal_create(context, &signal), -ENOSPC);
  EXPECT_EQ(eclip_signal_destroy(context, 5), 0);
  EXPECT_EQ(eclip_signal_destroy(context, 5), -EINVAL);
  EXPECT_EQ(create_signal(), 5U);
}

TEST_F(Submit, RefusesValuesThatNoPacketMayHave) {
  connect();
  eclip_lease* lease = acquire();
  const auto refused = [&](const std::function<void(eclip_dispatch&)>& change) {
    eclip_dispatch dispatch = some_dispatch();
    change(dispatch);
    return eclip_submit_dispatch(lease, &dispatch, nullptr) == -EINVAL;
  };
  EXPECT_TRUE(refused([](auto& d) { d.struct_size = 4; }));
  EXPECT_TRUE(refused([](auto& d) { d.flags = 4; }));
  EXPECT_TRUE(refused([](auto& d) { d.grid_size[2] = 0; }));
  EXPECT_TRUE(refused([](auto& d) { d.workgroup_size[1] = 0; }));
  EXPECT_TRUE(refused([](auto& d) { d.workgroup_size[0] = d.workgroup_size[1] = 33; }));
  EXPECT_TRUE(refused([](auto& d) { d.reserved = 1; }));
  EXPECT_TRUE(refused([](auto& d) { d.kernarg_offset = 16; }));
  EXPECT_TRUE(refused([](auto& d) { d.kernarg_memory = 1, d.kernarg_offset = 8; }));
  EXPECT_TRUE(refused([](auto& d) { d.flags = ECLIP_PACKET_SIGNAL, d.signal = 1024; }));
  EXPECT_TRUE(refused([](auto& d) { d.flags = ECLIP_PACKET_SIGNAL, d.signal = 3; }));
  EXPECT_EQ(eclip_submit_dispatch(lease, nullptr, nullptr), -EINVAL);
  EXPECT_EQ(eclip_submit_dispatch(nullptr, nullptr, nullptr), -EINVAL);
  EXPECT_EQ(written(), 0U);
}

TEST_F(Submit, RefusesBarriersThatCannotEnd) {
  connect();
  eclip_lease* lease = acquire();
  eclip_barrier barrier{};
  barrier.struct_size = sizeof barrier;
  barrier.dependency_count = 6;
  EXPECT_EQ(eclip_submit_barrier(lease, &barrier, nullptr), -EINVAL);
  barrier.dependency_count = 1;
  barrier.dependencies[0] = {0, 1};  // never submitted
  EXPECT_EQ(eclip_submit_barrier(lease, &barrier, nullptr), -EINVAL);
  barrier.dependencies[0] = {1024, 1};
  EXPECT_EQ(eclip_submit_barrier(lease, &barrier, nullptr), -EINVAL);
  barrier.dependency_count = 0;
  barrier.kind = 2;
  EXPECT_EQ(eclip_submit_barrier(lease, &barrier, nullptr), -EINVAL);
  EXPECT_EQ(written(), 0U);
}

TEST_F(Submit, WakesTheForwarderOnlyWhenItSleeps) {
  connect();
  eclip_lease* lease = acquire();
  submit(lease, some_dispatch());
  EXPECT_EQ(daemon.request().wake, 0U);
  daemon.board().forwarder_asleep = 1;
  submit(lease, some_dispatch());
  EXPECT_EQ(daemon.request().wake, 1U);
}

TEST_F(Submit, FailsWithThePacketAtFaultOnceCutOff) {
  connect();
  eclip_lease* lease = acquire();
  daemon.cut_off(Errc::not_found, 101, 42);
  const eclip_dispatch dispatch = some_dispatch();
  EXPECT_EQ(eclip_submit_dispatch(lease, &dispatch, nullptr), -EPROTO);
  EXPECT_THAT(eclip_last_error(), HasSubstr("packet 42 of lease 101 was refused (not found)"));
  EXPECT_EQ(written(), 0U);
  EXPECT_EQ(eclip_is_complete(context, eclip_token{0, 1}), -EPROTO) << "it will never be";
  daemon.state().signals[0].value = 1;
  daemon.state().signals[0].generation = 1;
  EXPECT_EQ(eclip_is_complete(context, eclip_token{0, 1}), 0) << "it runs";
}

TEST_F(Submit, SaysThatTheLeaseWasRevokedAndWhy) {
  connect();
  eclip_lease* lease = acquire();
  daemon.lease_slot(0).reason = static_cast<std::uint32_t>(LeaseEnd::preempted);
  daemon.lease_slot(0).state = static_cast<std::uint32_t>(LeaseState::revoked);
  const eclip_dispatch dispatch = some_dispatch();
  EXPECT_EQ(eclip_submit_dispatch(lease, &dispatch, nullptr), -ESTALE);
  EXPECT_THAT(eclip_last_error(), HasSubstr("was revoked (preempted by a lease of higher"));
  EXPECT_EQ(written(), 0U);
}

TEST_F(Submit, SaysThatTheLeaseEndedWhileThePacketWasWritten) {
  connect();
  eclip_lease* lease = acquire();
  LeaseRing& ring = daemon.ring(0);
  LeaseSlot& slot = daemon.lease_slot(0);
  daemon.board().forwarder_asleep = 1;  // submitting takes a while after the packet is written
  const eclip_dispatch dispatch = with_signal(create_signal());
  std::atomic<std::uint64_t> round{0};
  std::atomic<std::uint64_t> ended{0};
  // eclipd, which ends the lease when it has taken what was there before.
  std::thread eclipd([&] {
    for (std::uint64_t mine = 1;; ++mine) {
      while (round.load() < mine) std::this_thread::yield();
      if (round.load() == UINT64_MAX) return;
      while (ring.written.load() == ring.taken.load() && round.load() == mine) {
      }
      slot.state = static_cast<std::uint32_t>(LeaseState::ended);
      ended.store(mine);
    }
  });
  std::uint64_t tries = 0;
  const bool said = eventually([&] {
    slot.state = static_cast<std::uint32_t>(LeaseState::active);
    const std::uint64_t before = ring.written;
    ring.taken = before;
    slot.accepted = before;
    round.store(++tries);
    const int result = eclip_submit_dispatch(lease, &dispatch, nullptr);
    while (ended.load() < tries && ring.written != before) std::this_thread::yield();
    EXPECT_TRUE(result == 0 || result == -ESTALE) << result << ": " << eclip_last_error();
    EXPECT_EQ(ring.written, before + 1);
    // The GPU completes what was not dropped.
    auto& signal = daemon.state().signals[dispatch.signal];
    signal.value = 0;
    signal.generation = static_cast<std::uint32_t>(tries);
    return result == -ESTALE;
  });
  round.store(UINT64_MAX);
  eclipd.join();
  EXPECT_TRUE(said) << tries << " tries";
}

TEST_F(Submit, AnAbandonedUseIsNotUsedAgainAndDoesNotBlockItsSignal) {
  const auto state = std::make_unique<WorkerState>();
  SignalTable table(*state);
  const std::uint32_t signal = *table.reserve();
  const SignalUse first = *table.begin_use(signal);
  table.abandon_use(first);
  const SignalUse second = *table.begin_use(signal);
  EXPECT_EQ(second.generation, 2U);
  EXPECT_FALSE(table.begin_use(signal));
  // A use that was taken back leaves the abandoned one as the last.
  table.cancel_use(second);
  EXPECT_EQ(table.begin_use(signal)->generation, 2U);
}

/// Kills the process at any system call but its end. False when the system does not allow filters.
bool forbid_system_calls() {
  std::array<sock_filter, 4> program{{
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_exit_group, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
  }};
  const sock_fprog filter{.len = program.size(), .filter = program.data()};
  return ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
         ::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) == 0;
}

TEST_F(Submit, MakesNoSystemCallWhileTheForwarderIsAwake) {
#if defined(ECLIP_SANITIZED)
  GTEST_SKIP() << "code with sanitizers makes system calls of its own";
#endif
  constexpr int not_allowed = 2;
  connect();
  eclip_lease* lease = acquire();
  const std::uint32_t signal = create_signal();
  const eclip_dispatch dispatch = with_signal(signal);
  submit(lease, some_dispatch());  // resolves the symbols
  const pid_t child = ::fork();
  if (child == 0) {
    if (!forbid_system_calls()) ::_exit(not_allowed);
    eclip_token token{};
    int result = eclip_submit_dispatch(lease, &dispatch, &token);
    for (int i = 0; i < 100; ++i) result |= eclip_is_complete(context, token);
    ::_exit(result == 0 ? 0 : 1);
  }
  int status = -1;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  if (WIFEXITED(status) && WEXITSTATUS(status) == not_allowed)
    GTEST_SKIP() << "this system does not allow seccomp filters";
  ASSERT_TRUE(WIFEXITED(status)) << "killed by signal " << WTERMSIG(status)
                                 << ": submitting made a system call";
  EXPECT_EQ(WEXITSTATUS(status), 0);
  EXPECT_EQ(written(), 2U);
}

}  // namespace
}  // namespace eclip::test
