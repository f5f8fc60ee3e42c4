// The budget guard against all known ways to a CU mask, in a kernel that lets BPF programs refuse.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/io_uring.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <memory>
#include <numeric>
#include <optional>
#include <random>
#include <thread>
#include <vector>

#include "bpf/budget_guard.h"
#include "tests/fake/eventually.h"
#include "tests/guest/kfd_client.h"

namespace eclip::test {
namespace {

using bpf::BudgetGuard;
using bpf::GuardState;
using bpf::GuardVerdict;
using ::testing::HasSubstr;

constexpr unsigned ordinary_user = 1000;

/// One guard for all tests, since installing takes seconds in a guest; each counts from its start.
class GuardTest : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    ASSERT_TRUE(BudgetGuard::remove());
    install(guard_enforce);
  }
  static void TearDownTestSuite() {
    guard_.reset();
    EXPECT_TRUE(BudgetGuard::remove());
  }
  void SetUp() override {
    ASSERT_TRUE(guard_);
    if (is_stand_in()) {
      // Queues of the test before may still be on their way out, in a worker of the kernel.
      ASSERT_TRUE(eventually([] { return truth("queues") == 0; }));
      std::ofstream("/sys/kernel/debug/kfd_stand_in/masked_max") << 0;
    }
    ASSERT_TRUE(guard().set_policy(guard_enforce));
    ASSERT_TRUE(BudgetGuard::install({.policy = guard_enforce, .gate_drm_devices = false}));
    begin();
  }
  void TearDown() override {
    const GuardState at_end = state();
    EXPECT_EQ(at_end.unchecked, 0U) << "a call came to the driver past the guard";
    EXPECT_EQ(at_end.unaccounted, 0U);
    if (!is_stand_in()) return;
    EXPECT_LE(truth("masked_max"), at_end.policy == guard_enforce ? 7 : 1000);
    EXPECT_TRUE(eventually([this] { return state().in_use == truth("masked"); }))
        << state().in_use << " in use, " << truth("masked") << " masked";
  }

  static void install(guard_policy policy) {
    auto installed = BudgetGuard::install({.policy = policy});
    ASSERT_TRUE(installed) << installed.error().message();
    guard_.emplace(std::move(installed->guard));
  }
  /// Counts begin now.
  void begin() {
    before_ = GuardState{};
    before_ = state();
    denied_before_ = 0;
    denied_before_ = denials().size();
  }
  BudgetGuard& guard() { return *guard_; }
  /// What it has counted since the test began, and how it stands now.
  [[nodiscard]] GuardState state() const {
    auto state = guard_->state();
    EXPECT_TRUE(state) << state.error().message();
    if (!state) return {};
    for (std::size_t reason = 0; reason < guard_reasons; ++reason) {
      state->refused.at(reason) -= before_.refused.at(reason);
      state->audited.at(reason) -= before_.audited.at(reason);
    }
    return *state;
  }
  /// Of processes that were not refused anything before the test.
  [[nodiscard]] std::vector<DenialRecord> denials() const {
    auto all = guard_->denials();
    EXPECT_TRUE(all) << all.error().message();
    if (!all) return {};
    std::sort(all->begin(), all->end(),
              [](const auto& a, const auto& b) { return a.process_start_ns < b.process_start_ns; });
    all->erase(all->begin(), all->begin() + static_cast<std::ptrdiff_t>(denied_before_));
    return *all;
  }
  [[nodiscard]] bool counts_by_functions() const {
    return state().tier.accounting == guard_by_functions;
  }
  [[nodiscard]] std::uint64_t refused() const {
    const auto counts = state().refused;
    return std::accumulate(counts.begin(), counts.end(), std::uint64_t{0});
  }
  /// Runs what returns an exit status in a child with a lease.
  template <class Body>
  int leased(std::uint32_t queues, Body body) {
    Client client(body);
    const auto granted = guard().grant(client.pid(), queues);
    EXPECT_TRUE(granted) << granted.error().message();
    client.go();
    return client.wait();
  }
  /// What the driver answers to a mask of a queue that is not there.
  static constexpr int reaches_driver = EFAULT;

 private:
  static std::optional<BudgetGuard> guard_;
  GuardState before_{};
  std::size_t denied_before_ = 0;
};
std::optional<BudgetGuard> GuardTest::guard_;

// Which kind a kernel gets.

TEST_F(GuardTest, TheBestTierOfTheKernelIsInForce) {
  const auto tier = state().tier;
  EXPECT_EQ(tier.verdict == GuardVerdict::lsm, environment("ECLIP_GUEST_LSM") == "bpf");
  EXPECT_EQ(tier.accounting, environment("ECLIP_GUEST_DRIVER") == "stand-in-without-btf"
                                 ? guard_by_probes
                                 : guard_by_functions);
}

// The traps of the field, each by its name.

TEST_F(GuardTest, TrapACallOf32BitsTakesAnotherHook) {
  EXPECT_EQ(in_child([] { return mask_by_int80(Kfd()); }), EPERM);
  EXPECT_EQ(leased(1, [] { return mask_by_int80(Kfd()); }), reaches_driver);
}

TEST_F(GuardTest, TrapTheDriverLooksAtTheCommandsNumberOnly) {
  for (const unsigned command : std::initializer_list<unsigned>{
           _IOC(3U, 'Z', 0x1aU, 88U), 0x511a, 0x1a, _IOC(2U, 'K', 0x1aU, 16U), 0xffffff1a}) {
    SCOPED_TRACE(command);
    EXPECT_EQ(in_child([command] {
                kfd_ioctl_set_cu_mask_args arguments{};
                return Kfd().call(command, &arguments);
              }),
              EPERM);
  }
}

TEST_F(GuardTest, TrapProgramsThatAttachNeedNotFire) {
  // Where bpf is not in lsm=, LSM programs attach and never run: the test call finds it out.
  EXPECT_EQ(state().tier.verdict,
            environment("ECLIP_GUEST_LSM") == "bpf" ? GuardVerdict::lsm : GuardVerdict::fmod_ret);
  EXPECT_EQ(in_child([] { return Kfd().mask(7); }), EPERM);
}

TEST_F(GuardTest, TrapWhatIsOnlySeenIsNotCalledRefused) {
  ASSERT_TRUE(guard().set_policy(guard_audit));
  EXPECT_EQ(in_child([] { return Kfd().mask(7); }), reaches_driver);
  EXPECT_EQ(state().refused[guard_no_lease], 0U);
  EXPECT_EQ(state().audited[guard_no_lease], 1U);
  EXPECT_EQ(state().in_use, 0);
}

TEST_F(GuardTest, TrapLinksDieWithTheirOwner) {
  ASSERT_TRUE(BudgetGuard::remove());
  ASSERT_EQ(in_child([] { return BudgetGuard::install({.policy = guard_enforce}) ? 0 : 1; }), 0);
  install(guard_enforce);
  begin();
  EXPECT_EQ(in_child([] { return Kfd().mask(7); }), EPERM);
}

TEST_F(GuardTest, TrapCreatingQueuesIsNotForTheLeasedOnly) {
  EXPECT_EQ(in_child([] {
              std::uint32_t queue = 0;
              return Kfd().create_queue(&queue);
            }),
            is_stand_in() ? 0 : EINVAL);
}

// Who may.

TEST_F(GuardTest, ALeaseIsForRootAndForUsersAlike) {
  for (const unsigned uid : {0U, ordinary_user}) {
    SCOPED_TRACE(uid);
    const auto mask = [uid] {
      if (::setresuid(uid, uid, uid) != 0) return 98;
      return Kfd().mask(7);
    };
    EXPECT_EQ(in_child(mask), EPERM);
    EXPECT_EQ(leased(1, mask), reaches_driver);
  }
  const auto denied = denials();
  ASSERT_EQ(denied.size(), 2U);
  EXPECT_EQ(denied[0].uid, 0U);
  EXPECT_EQ(denied[1].uid, ordinary_user);
}

TEST_F(GuardTest, ALeaseTakenBackIsNone) {
  Client client([] { return Kfd().mask(7); });
  ASSERT_TRUE(guard().grant(client.pid(), 1));
  ASSERT_TRUE(guard().grant(client.pid(), 0));
  client.go();
  EXPECT_EQ(client.wait(), EPERM);
}

TEST_F(GuardTest, ALeaseIsNotForChildren) {
  EXPECT_EQ(leased(1, [] { return in_child([] { return Kfd().mask(7); }); }), EPERM);
}

TEST_F(GuardTest, ALeaseIsNotForAProcessThatSharesItsMemory) {
  EXPECT_EQ(leased(1,
                   [] {
                     static int result = -1;
                     static std::array<char, 65536> stack;
                     const pid_t child = ::clone(
                         [](void*) {
                           const Kfd kfd;
                           result = kfd.mask(7);
                           return 0;
                         },
                         stack.data() + stack.size(), CLONE_VM | SIGCHLD, nullptr);
                     ::waitpid(child, nullptr, 0);
                     return result;
                   }),
            EPERM);
}

TEST_F(GuardTest, ALeaseEndsWithExec) {
  // The program that is executed masks, by this test program itself.
  EXPECT_EQ(leased(1,
                   [] {
                     ::setenv("ECLIP_GUARD_TEST_MASKS", "1", 1);
                     ::execl("/proc/self/exe", "guard_test", nullptr);
                     return 98;
                   }),
            EPERM);
}

TEST_F(GuardTest, ALeaseEndsWithTheExecOfAThreadThatIsNotTheLeader) {
  EXPECT_EQ(leased(1,
                   [] {
                     ::setenv("ECLIP_GUARD_TEST_MASKS", "1", 1);
                     std::thread([] { ::execl("/proc/self/exe", "guard_test", nullptr); }).join();
                     return 98;
                   }),
            EPERM);
}

TEST_F(GuardTest, ThreadsShareTheirProcessesLease) {
  EXPECT_EQ(leased(1,
                   [] {
                     int result = -1;
                     std::thread([&result] { result = Kfd().mask(7); }).join();
                     return result;
                   }),
            reaches_driver);
}

// Ways around.

TEST_F(GuardTest, APassedDescriptorDoesNotCarryTheLease) {
  std::array<int, 2> ends{};
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM, 0, ends.data()), 0);
  Client owner([&ends] {
    const Kfd kfd;
    char byte = 0;
    iovec data{&byte, 1};
    alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> control{};
    msghdr message{};
    message.msg_iov = &data;
    message.msg_iovlen = 1;
    message.msg_control = control.data();
    message.msg_controllen = control.size();
    cmsghdr* header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int));
    const int fd = kfd.fd();
    std::memcpy(CMSG_DATA(header), &fd, sizeof fd);
    if (::sendmsg(ends[0], &message, 0) != 1) return 1;
    return ::read(ends[0], &byte, 1) == 1 ? 0 : 2;
  });
  ASSERT_TRUE(guard().grant(owner.pid(), 1));
  owner.go();
  const auto receive = [&ends] {
    char byte = 0;
    iovec data{&byte, 1};
    alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> control{};
    msghdr message{};
    message.msg_iov = &data;
    message.msg_iovlen = 1;
    message.msg_control = control.data();
    message.msg_controllen = control.size();
    if (::recvmsg(ends[1], &message, 0) != 1) return 98;
    int fd = -1;
    std::memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof fd);
    kfd_ioctl_set_cu_mask_args arguments{};
    return ::ioctl(fd, AMDKFD_IOC_SET_CU_MASK, &arguments) == 0 ? 0 : errno;
  };
  EXPECT_EQ(in_child(receive), EPERM);
  ASSERT_EQ(::write(ends[1], "", 1), 1);
  EXPECT_EQ(owner.wait(), 0);
  ::close(ends[0]);
  ::close(ends[1]);
}

TEST_F(GuardTest, AnotherNodeOfTheDeviceIsTheDevice) {
  struct stat kfd {};
  ASSERT_EQ(::stat("/dev/kfd", &kfd), 0);
  ASSERT_EQ(::mknod("/tmp/another-node-of-kfd", S_IFCHR | 0666, kfd.st_rdev), 0);
  EXPECT_EQ(in_child([] {
              const int fd = ::open("/tmp/another-node-of-kfd", O_RDWR);
              kfd_ioctl_set_cu_mask_args arguments{};
              return ::ioctl(fd, AMDKFD_IOC_SET_CU_MASK, &arguments) == 0 ? 0 : errno;
            }),
            EPERM);
  ::unlink("/tmp/another-node-of-kfd");
}

TEST_F(GuardTest, CheckpointRestoreIsRefusedToTheLeasedToo) {
  const auto restore = [] {
    kfd_ioctl_criu_args arguments{};
    arguments.op = KFD_CRIU_OP_RESTORE;
    return Kfd().call(AMDKFD_IOC_CRIU_OP, &arguments);
  };
  EXPECT_EQ(in_child(restore), EPERM);
  EXPECT_EQ(leased(7, restore), EPERM);
  EXPECT_EQ(state().refused[guard_restore], 2U);
}

/// Something that a leased process is open to: what its bystander gets.
template <class Act>
int act_on_leased(BudgetGuard& guard, Act act) {
  Client target([] { return 0; });
  EXPECT_TRUE(guard.grant(target.pid(), 1));
  return in_child([&] { return act(target.pid()); });
}

TEST_F(GuardTest, ALeasedProcessCannotBeTraced) {
  EXPECT_EQ(act_on_leased(guard(),
                          [](pid_t pid) {
                            return ::ptrace(PTRACE_ATTACH, pid, nullptr, nullptr) == 0 ? 0 : errno;
                          }),
            EPERM);
  EXPECT_EQ(act_on_leased(guard(),
                          [](pid_t pid) {
                            return ::ptrace(PTRACE_SEIZE, pid, nullptr, nullptr) == 0 ? 0 : errno;
                          }),
            EPERM);
  EXPECT_EQ(state().refused[guard_ptrace], 2U);
}

TEST_F(GuardTest, NobodyTakesOrWritesWhatALeasedProcessHas) {
  EXPECT_EQ(act_on_leased(guard(),
                          [](pid_t pid) {
                            const auto pidfd = ::syscall(SYS_pidfd_open, pid, 0);
                            return ::syscall(SYS_pidfd_getfd, pidfd, 0, 0) >= 0 ? 0 : errno;
                          }),
            EPERM);
  EXPECT_EQ(act_on_leased(guard(),
                          [](pid_t pid) {
                            const auto file = "/proc/" + std::to_string(pid) + "/mem";
                            return ::open(file.c_str(), O_RDWR) >= 0 ? 0 : errno;
                          }),
            EACCES);
  EXPECT_EQ(act_on_leased(guard(),
                          [](pid_t pid) {
                            static int word = 0;
                            const iovec here{&word, sizeof word};
                            return ::process_vm_writev(pid, &here, 1, &here, 1, 0) >= 0 ? 0 : errno;
                          }),
            EPERM);
  // What only looks, as ps does, goes on.
  EXPECT_EQ(act_on_leased(guard(),
                          [](pid_t pid) {
                            const auto file = "/proc/" + std::to_string(pid) + "/maps";
                            return ::open(file.c_str(), O_RDONLY) >= 0 ? 0 : errno;
                          }),
            0);
}

TEST_F(GuardTest, WhoHasNoLeaseIsTracedAsEver) {
  Client target([] { return 0; });
  EXPECT_EQ(in_child([&] {
              return ::ptrace(PTRACE_SEIZE, target.pid(), nullptr, nullptr) == 0 ? 0 : errno;
            }),
            0);
}

/// The result of a command by io_uring: 0 or the error number.
int mask_by_io_uring(int fd) {
  io_uring_params parameters{};
  const int ring = static_cast<int>(::syscall(SYS_io_uring_setup, 2, &parameters));
  if (ring < 0) return errno;
  const std::size_t bytes = 16384;
  auto* const submission = static_cast<char*>(
      ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, ring, IORING_OFF_SQ_RING));
  auto* const entry =
      static_cast<io_uring_sqe*>(::mmap(nullptr, sizeof(io_uring_sqe) * 2, PROT_READ | PROT_WRITE,
                                        MAP_SHARED, ring, IORING_OFF_SQES));
  kfd_ioctl_set_cu_mask_args arguments{};
  *entry = {};
  entry->opcode = IORING_OP_URING_CMD;
  entry->fd = fd;
  entry->addr = reinterpret_cast<std::uintptr_t>(&arguments);
  entry->off = AMDKFD_IOC_SET_CU_MASK;
  *reinterpret_cast<std::uint32_t*>(submission + parameters.sq_off.array) = 0;
  *reinterpret_cast<std::uint32_t*>(submission + parameters.sq_off.tail) += 1;
  if (::syscall(SYS_io_uring_enter, ring, 1, 1, IORING_ENTER_GETEVENTS, nullptr, 0) != 1)
    return errno;
  // With one mapping both rings are in it.
  const auto* const completion =
      reinterpret_cast<const io_uring_cqe*>(submission + parameters.cq_off.cqes);
  return -completion->res;
}

TEST_F(GuardTest, IoUringHasNoWayToTheDriver) {
  EXPECT_EQ(in_child([] { return mask_by_io_uring(Kfd().fd()); }), EOPNOTSUPP);
}

TEST_F(GuardTest, DrmDevicesAreGatedWhereThatIsAskedFor) {
  const auto open_node = [] { return ::open("/tmp/node", O_RDWR) >= 0 ? 0 : errno; };
  ASSERT_EQ(::mknod("/tmp/node", S_IFCHR | 0666, makedev(226, 128)), 0);
  EXPECT_NE(in_child(open_node), EACCES);  // no such device, without a GPU
  ASSERT_TRUE(BudgetGuard::install({.policy = guard_enforce, .gate_drm_devices = true}));
  EXPECT_EQ(in_child(open_node), EACCES);
  EXPECT_NE(leased(1, open_node), EACCES);
  EXPECT_EQ(state().refused[guard_drm_device], 1U);
  ::unlink("/tmp/node");
}

// Its life.

TEST_F(GuardTest, IsTakenOverAndKeepsThePolicyUntilTheConfigurationChanges) {
  ASSERT_TRUE(guard().set_policy(guard_audit));
  auto again = BudgetGuard::install({.policy = guard_enforce});
  ASSERT_TRUE(again) << again.error().message();
  EXPECT_TRUE(again->taken_over);
  EXPECT_EQ(state().policy, guard_audit);
  again = BudgetGuard::install({.policy = guard_audit});
  again = BudgetGuard::install({.policy = guard_enforce});
  ASSERT_TRUE(again);
  EXPECT_EQ(state().policy, guard_enforce);
}

TEST_F(GuardTest, RemovedItIsGone) {
  const auto removed = BudgetGuard::remove();
  ASSERT_TRUE(removed);
  EXPECT_TRUE(*removed);
  // The links go when nobody holds them any more; the kernel does that in its time.
  EXPECT_TRUE(eventually([] { return in_child([] { return Kfd().mask(7); }) == reaches_driver; }));
  EXPECT_FALSE(BudgetGuard::is_installed());
  EXPECT_EQ(BudgetGuard::open().error().code, Errc::not_found);
  EXPECT_FALSE(*BudgetGuard::remove());
  install(guard_enforce);
  begin();
}

TEST_F(GuardTest, EachGpuWithAnEclipdHasABudget) {
  EXPECT_EQ(state().limit, 7U);
  ASSERT_TRUE(guard().cover(11));
  EXPECT_EQ(state().limit, 7U);
  ASSERT_TRUE(guard().cover(12));
  ASSERT_TRUE(guard().cover(11));
  EXPECT_EQ(state().limit, 14U);
  ASSERT_TRUE(BudgetGuard::remove());
  install(guard_enforce);
  begin();
}

TEST_F(GuardTest, NoDenialIsLostInAFlood) {
  constexpr int processes = 20;
  constexpr int calls = 200;
  for (int i = 0; i < processes; ++i)
    EXPECT_EQ(in_child([] {
                const Kfd kfd;
                for (int call = 0; call < calls; ++call)
                  if (kfd.mask(7) != EPERM) return 1;
                return 0;
              }),
              0);
  EXPECT_EQ(state().refused[guard_no_lease], std::uint64_t{processes} * calls);
  std::uint64_t sum = 0;
  for (const auto& denial : denials()) {
    sum += denial.refused;
    EXPECT_EQ(denial.command.str(), "guard_test");
    EXPECT_EQ(denial.number, 0x1aU);
  }
  EXPECT_EQ(sum, std::uint64_t{processes} * calls);
}

// What the command says.

/// Standard output and errors of a command, and "exit N" where that is not 0.
std::string said_by(const std::string& command) {
  FILE* pipe = ::popen((command + " 2>&1").c_str(), "r");
  std::string text;
  std::array<char, 4096> buffer{};
  for (std::size_t got = 0; (got = std::fread(buffer.data(), 1, buffer.size(), pipe)) > 0;)
    text.append(buffer.data(), got);
  const int status = ::pclose(pipe);
  if (status != 0) text += "exit " + std::to_string(WEXITSTATUS(status));
  return text;
}

TEST_F(GuardTest, EclipctlShowsAndChangesItWithoutEclipd) {
  const std::string ctl = ECLIPCTL_PROGRAM;
  EXPECT_EQ(in_child([] { return Kfd().mask(7); }), EPERM);
  EXPECT_THAT(said_by(ctl + " budget"), HasSubstr("0 of 7 streams"));
  EXPECT_THAT(said_by(ctl + " budget"), HasSubstr("enforce; " + bpf::describe(state().tier)));
  EXPECT_THAT(said_by(ctl + " budget"), HasSubstr("a CU mask without a lease"));
  EXPECT_THAT(said_by(ctl + " budget --json"), HasSubstr("\"refused\": 1"));
  EXPECT_THAT(said_by(ctl + " budget set audit"), HasSubstr("policy is audit"));
  EXPECT_EQ(state().policy, guard_audit);
  EXPECT_THAT(said_by(ctl + " budget set enforce"), HasSubstr("policy is enforce"));
  Client client([] { return Kfd().mask(7); });
  EXPECT_THAT(said_by(ctl + " budget grant " + std::to_string(client.pid()) + " 2"),
              HasSubstr("may have 2 CU-masked queues"));
  client.go();
  EXPECT_EQ(client.wait(), reaches_driver);
  EXPECT_THAT(said_by(ctl + " budget grant 4000000 1"), HasSubstr("No such process"));
  EXPECT_THAT(said_by("su user -c '" + ctl + " budget set audit'"), HasSubstr("only root may"));
  EXPECT_THAT(said_by(ctl + " budget guard off"), HasSubstr("is removed"));
  EXPECT_THAT(said_by(ctl + " budget"), HasSubstr("eclipd is not running"));
  EXPECT_THAT(said_by(ctl + " budget guard on --policy enforce"), HasSubstr("is installed"));
  install(guard_enforce);
  begin();
}

// With queues that succeed.

class GuardWithStandIn : public GuardTest {
 protected:
  void SetUp() override {
    if (!is_stand_in()) GTEST_SKIP() << "without a GPU the real driver has no queues";
    GuardTest::SetUp();
  }
};

TEST_F(GuardWithStandIn, TheEighthMaskIsRefusedAndADestroyedQueueFreesOne) {
  EXPECT_EQ(leased(8,
                   [] {
                     const Kfd kfd;
                     std::array<std::uint32_t, 8> queues{};
                     for (auto& queue : queues)
                       if (kfd.create_queue(&queue) != 0) return 1;
                     for (int i = 0; i < 7; ++i)
                       if (kfd.mask(queues.at(static_cast<std::size_t>(i))) != 0) return 2;
                     if (kfd.mask(queues[7]) != EBUSY) return 3;
                     if (kfd.destroy(queues[0]) != 0) return 4;
                     return kfd.mask(queues[7]) == 0 ? 0 : 5;
                   }),
            0);
  EXPECT_EQ(truth("masked_max"), 7);
  EXPECT_TRUE(eventually([this] { return state().in_use == 0; })) << state().in_use;
  EXPECT_EQ(state().refused[guard_budget_used], 1U);
}

TEST_F(GuardWithStandIn, ALeaseGrantsSoManyAndNoMore) {
  EXPECT_EQ(leased(2,
                   [] {
                     const Kfd kfd;
                     std::array<std::uint32_t, 3> queues{};
                     for (auto& queue : queues)
                       if (kfd.create_queue(&queue) != 0) return 1;
                     if (kfd.mask(queues[0]) != 0 || kfd.mask(queues[1]) != 0) return 2;
                     return kfd.mask(queues[2]) == EBUSY ? 0 : 3;
                   }),
            0);
  EXPECT_EQ(state().refused[guard_lease_used], 1U);
}

TEST_F(GuardWithStandIn, TheLeasesOfAllAreHeldToOneBudget) {
  const auto mask_four = [](int status_of_last) {
    return [status_of_last] {
      const Kfd kfd;
      std::uint32_t queue = 0;
      for (int i = 0; i < 3; ++i)
        if (kfd.create_queue(&queue) != 0 || kfd.mask(queue) != 0) return 1;
      if (kfd.create_queue(&queue) != 0) return 2;
      if (kfd.mask(queue) != status_of_last) return 3;
      ::kill(::getpid(), SIGSTOP);
      return 0;
    };
  };
  Client first(mask_four(0));
  ASSERT_TRUE(guard().grant(first.pid(), 4));
  first.go();
  ASSERT_TRUE(first.stops());
  Client second(mask_four(EBUSY));
  ASSERT_TRUE(guard().grant(second.pid(), 4));
  second.go();
  ASSERT_TRUE(second.stops());
  EXPECT_EQ(truth("masked"), 7);
  EXPECT_EQ(state().in_use, 7);
  const auto queues = guard().queues();
  ASSERT_TRUE(queues);
  ASSERT_EQ(queues->size(), 2U);
  for (const auto& of : *queues) EXPECT_EQ(of.masked, of.pid == first.pid() ? 4U : 3U);
}

TEST_F(GuardWithStandIn, AMaskThatIsSetCanBeChangedAtSevenOfSeven) {
  const int expected = counts_by_functions() ? 0 : EBUSY;
  EXPECT_EQ(leased(7,
                   [expected] {
                     const Kfd kfd;
                     std::array<std::uint32_t, 7> queues{};
                     for (auto& queue : queues)
                       if (kfd.create_queue(&queue) != 0 || kfd.mask(queue) != 0) return 1;
                     for (const auto queue : queues)
                       if (kfd.mask(queue) != expected) return 2;
                     // With a queue that has none the guard cannot know which one is meant.
                     std::uint32_t plain = 0;
                     if (kfd.create_queue(&plain) != 0) return 3;
                     if (kfd.mask(queues[0]) != EBUSY || kfd.mask(plain) != EBUSY) return 4;
                     if (kfd.destroy(plain) != 0) return 5;
                     return kfd.mask(queues[0]) == expected ? 0 : 6;
                   }),
            0);
  EXPECT_EQ(truth("masked_max"), 7);
}

TEST_F(GuardWithStandIn, QueuesWithoutCusDoNotCount) {
  if (!counts_by_functions()) GTEST_SKIP() << "probes do not tell what kind a queue is";
  EXPECT_EQ(leased(7,
                   [] {
                     const Kfd kfd;
                     std::uint32_t queue = 0;
                     for (int i = 0; i < 7; ++i)
                       if (kfd.create_queue(&queue) != 0 || kfd.mask(queue) != 0) return 1;
                     std::uint32_t copies = 0;
                     if (kfd.create_queue(&copies, any_gpu, 100, KFD_IOC_QUEUE_TYPE_SDMA) != 0)
                       return 2;
                     return kfd.mask(copies) == 0 && kfd.mask(queue) == 0 ? 0 : 3;
                   }),
            0);
}

TEST_F(GuardWithStandIn, ACallThatFailsTakesNothing) {
  EXPECT_EQ(leased(1,
                   [] {
                     const Kfd kfd;
                     for (int i = 0; i < 20; ++i)
                       if (kfd.mask(500) != EFAULT || kfd.mask(500, 31) != EINVAL) return 1;
                     std::uint32_t queue = 0;
                     if (kfd.create_queue(&queue) != 0) return 2;
                     return kfd.mask(queue) == 0 ? 0 : 3;
                   }),
            0);
}

TEST_F(GuardWithStandIn, AQueueThatIsDestroyedLateIsGoneAllTheSame) {
  EXPECT_EQ(leased(1,
                   [] {
                     const Kfd kfd;
                     for (int i = 0; i < 3; ++i) {
                       std::uint32_t queue = 0;
                       if (kfd.create_queue(&queue, any_gpu, late_queue_percentage) != 0) return 1;
                       if (kfd.mask(queue) != 0) return 2;
                       if (kfd.destroy(queue) != ETIME) return 3;
                     }
                     return 0;
                   }),
            0);
}

TEST_F(GuardWithStandIn, TrapTheCallersMemoryChangesUnderWay) {
  // Another thread changes which queue is meant while the call is made; what counts is what the
  // driver has seen.
  EXPECT_EQ(leased(7,
                   [] {
                     const Kfd kfd;
                     std::array<std::uint32_t, 14> queues{};
                     for (auto& queue : queues)
                       if (kfd.create_queue(&queue) != 0) return 1;
                     std::array<std::uint32_t, 2> words{0x7fff, 0};
                     kfd_ioctl_set_cu_mask_args arguments{
                         queues[0], 64, reinterpret_cast<std::uintptr_t>(words.data())};
                     std::atomic<bool> done{false};
                     std::thread other([&] {
                       auto& meant =
                           *reinterpret_cast<volatile std::uint32_t*>(&arguments.queue_id);
                       for (unsigned i = 0; !done; ++i) meant = queues.at(i % queues.size());
                     });
                     for (int i = 0; i < 2000; ++i) kfd.call(AMDKFD_IOC_SET_CU_MASK, &arguments);
                     done = true;
                     other.join();
                     return truth("masked") <= 7 ? 0 : 2;
                   }),
            0);
  EXPECT_LE(truth("masked_max"), 7);
}

TEST_F(GuardWithStandIn, NeverMoreThanSevenHoweverManyTry) {
  std::vector<std::unique_ptr<Client>> clients;
  for (unsigned number = 0; number < 4; ++number) {
    clients.push_back(std::make_unique<Client>([number] {
      std::atomic<int> failures{0};
      const Kfd kfd;
      std::vector<std::thread> threads;
      for (unsigned thread = 0; thread < 3; ++thread)
        threads.emplace_back([&, seed = number * 3 + thread] {
          std::minstd_rand random(seed);
          for (int i = 0; i < 300; ++i) {
            std::array<std::uint32_t, 3> queues{};
            for (auto& queue : queues)
              while (kfd.create_queue(&queue) == EAGAIN) {
              }
            for (const auto queue : queues) {
              const int error = kfd.mask(queue);
              if (error != 0 && error != EBUSY) ++failures;
            }
            kfd.mask(queues.at(random() % queues.size()));  // perhaps again
            for (const auto queue : queues)
              if (kfd.destroy(queue) != 0) ++failures;
          }
        });
      for (auto& thread : threads) thread.join();
      return failures == 0 ? 0 : 1;
    }));
    ASSERT_TRUE(guard().grant(clients.back()->pid(), 7));
  }
  for (auto& client : clients) client->go();
  for (auto& client : clients) EXPECT_EQ(client->wait(), 0);
  EXPECT_LE(truth("masked_max"), 7);
  EXPECT_GT(truth("masked_max"), 3);
  EXPECT_GT(refused(), 0U);
  EXPECT_TRUE(eventually([this] { return state().in_use == 0; })) << state().in_use;
}

TEST_F(GuardWithStandIn, ChangingMasksWhileOthersCreateQueuesGainsNothing) {
  // A process that has only masked queues may change masks at the limit. While one thread does,
  // others create queues and try to have these masked by that.
  EXPECT_EQ(leased(7,
                   [] {
                     const Kfd kfd;
                     std::array<std::uint32_t, 7> queues{};
                     for (auto& queue : queues)
                       if (kfd.create_queue(&queue) != 0 || kfd.mask(queue) != 0) return 1;
                     std::atomic<bool> done{false};
                     std::thread creator([&] {
                       while (!done) {
                         std::uint32_t queue = 0;
                         if (kfd.create_queue(&queue) != 0) continue;
                         kfd.mask(queue);
                         kfd.destroy(queue);
                       }
                     });
                     std::thread guesser([&] {
                       while (!done) kfd.mask(7);  // the next one's number
                     });
                     for (int i = 0; i < 20000; ++i)
                       kfd.mask(queues.at(static_cast<std::size_t>(i % 7)));
                     done = true;
                     creator.join();
                     guesser.join();
                     return truth("masked_max") <= 7 ? 0 : 2;
                   }),
            0);
}

TEST_F(GuardWithStandIn, WhatAKilledProcessHadIsFreeAgain) {
  for (int i = 0; i < 5; ++i) {
    Client client([] {
      const Kfd kfd;
      while (true) {
        std::uint32_t queue = 0;
        kfd.create_queue(&queue);
        kfd.mask(queue);
      }
      return 0;
    });
    ASSERT_TRUE(guard().grant(client.pid(), 7));
    client.go();
    ASSERT_TRUE(eventually([] { return truth("masked") == 7; }));
    ::kill(client.pid(), SIGKILL);
    EXPECT_EQ(client.wait(), -SIGKILL);
    EXPECT_TRUE(eventually([this] { return state().in_use == 0; })) << state().in_use;
  }
}

TEST_F(GuardWithStandIn, QueuesCountForAsLongAsTheDriverKeepsThemAfterAnExec) {
  for (const bool keeps_device : {false, true}) {
    SCOPED_TRACE(keeps_device);
    Client client([keeps_device] {
      const Kfd kfd;
      std::uint32_t queue = 0;
      if (kfd.create_queue(&queue) != 0 || kfd.mask(queue) != 0) return 1;
      ::fcntl(kfd.fd(), F_SETFD, keeps_device ? 0 : FD_CLOEXEC);
      ::execl("/bin/sleep", "sleep", "60", nullptr);
      return 2;
    });
    ASSERT_TRUE(guard().grant(client.pid(), 1));
    client.go();
    ASSERT_TRUE(eventually(
        [&] { return contents("/proc/" + std::to_string(client.pid()) + "/comm") == "sleep\n"; }));
    EXPECT_TRUE(eventually([&] { return truth("masked") == (keeps_device ? 1 : 0); }));
    EXPECT_TRUE(eventually([&] { return state().in_use == (keeps_device ? 1 : 0); }));
    ::kill(client.pid(), SIGKILL);
    client.wait();
    EXPECT_TRUE(eventually([this] { return state().in_use == 0; }));
  }
}

TEST_F(GuardWithStandIn, TheLedgerKnowsEachProcessesQueues) {
  if (!counts_by_functions()) GTEST_SKIP() << "probes know masked queues only";
  constexpr std::uint32_t gpu = 4711;
  Client client([] {
    const Kfd kfd;
    std::uint32_t queue = 0;
    for (int i = 0; i < 3; ++i)
      if (kfd.create_queue(&queue, gpu) != 0) return 1;
    if (kfd.mask(queue) != 0) return 2;
    ::kill(::getpid(), SIGSTOP);
    return 0;
  });
  ASSERT_TRUE(guard().grant(client.pid(), 1));
  client.go();
  ASSERT_TRUE(client.stops());
  const auto queues = guard().queues();
  ASSERT_TRUE(queues);
  ASSERT_EQ(queues->size(), 1U);
  EXPECT_EQ(queues->front().pid, client.pid());
  EXPECT_EQ(queues->front().gpu_id, gpu);
  EXPECT_EQ(queues->front().alive, 3U);
  EXPECT_EQ(queues->front().masked, 1U);
}

TEST_F(GuardWithStandIn, AuditLetsPassAndCountsWhatItWouldRefuse) {
  ASSERT_TRUE(guard().set_policy(guard_audit));
  EXPECT_EQ(in_child([] {
              const Kfd kfd;
              for (int i = 0; i < 9; ++i) {
                std::uint32_t queue = 0;
                if (kfd.create_queue(&queue) != 0 || kfd.mask(queue) != 0) return 1;
              }
              return 0;
            }),
            0);
  EXPECT_EQ(state().audited[guard_no_lease], 9U);
  EXPECT_EQ(refused(), 0U);
  EXPECT_EQ(truth("masked_max"), 9);
  EXPECT_TRUE(eventually([this] { return state().in_use == 0; })) << state().in_use;
}

TEST_F(GuardWithStandIn, EnforcingBelowWhatIsThereTakesNothingAway) {
  ASSERT_TRUE(guard().set_policy(guard_audit));
  Client client([] {
    const Kfd kfd;
    std::uint32_t queue = 0;
    for (int i = 0; i < 9; ++i)
      if (kfd.create_queue(&queue) != 0 || kfd.mask(queue) != 0) return 1;
    ::kill(::getpid(), SIGSTOP);
    if (kfd.create_queue(&queue) != 0) return 2;
    return kfd.mask(queue) == EBUSY ? 0 : 3;
  });
  ASSERT_TRUE(guard().grant(client.pid(), 20));
  client.go();
  ASSERT_TRUE(client.stops());
  ASSERT_TRUE(guard().set_policy(guard_enforce));
  EXPECT_EQ(state().in_use, 9);
  client.go_on();
  EXPECT_EQ(client.wait(), 0);
  ASSERT_TRUE(guard().set_policy(guard_audit));  // TearDown: there were nine
}

}  // namespace
}  // namespace eclip::test

int main(int argc, char** argv) {
  // What ALeaseEndsWithExec executes.
  if (std::getenv("ECLIP_GUARD_TEST_MASKS") != nullptr) return eclip::test::Kfd().mask(7);
  testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
