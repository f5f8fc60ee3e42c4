// That the guest is what the other tests in it rely on: the kernel as booted, and a /dev/kfd, of
// the real driver or of its stand-in, that answers alike.
#include <bpf/bpf.h>
#include <bpf/btf.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/bpf.h>
#include <linux/kfd_ioctl.h>
#include <linux/magic.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <new>
#include <string>

#include "tests/fake/eventually.h"
#include "tests/guest/kfd_client.h"

namespace eclip::test {
namespace {

/// The file descriptor of a module's types, -1 where it has none.
int module_btf(const std::string& name) {
  for (std::uint32_t id = 0; bpf_btf_get_next_id(id, &id) == 0;) {
    const int fd = bpf_btf_get_fd_by_id(id);
    std::array<char, 64> found{};
    bpf_btf_info info{};
    info.name = reinterpret_cast<std::uintptr_t>(found.data());
    info.name_len = found.size();
    std::uint32_t size = sizeof info;
    if (fd >= 0 && bpf_obj_get_info_by_fd(fd, &info, &size) == 0 && name == found.data()) return fd;
    ::close(fd);
  }
  return -1;
}

TEST(Guest, ItsSecurityModulesAreThoseOfItsBoot) {
  const bool has_bpf = contents("/sys/kernel/security/lsm").find("bpf") != std::string::npos;
  EXPECT_EQ(has_bpf, environment("ECLIP_GUEST_LSM") == "bpf");
}

TEST(Guest, HasAFileSystemToPinBpfObjectsIn) {
  struct statfs info {};
  ASSERT_EQ(::statfs("/sys/fs/bpf", &info), 0);
  EXPECT_EQ(info.f_type, BPF_FS_MAGIC);
}

TEST(Guest, FunctionsOfTheDriverCanBeAttachedTo) {
  if (environment("ECLIP_GUEST_DRIVER") == "stand-in-without-btf") GTEST_SKIP() << "it has no BTF";
  btf* const kernel_types = btf__load_vmlinux_btf();
  btf* const types = btf__load_module_btf(module_name().c_str(), kernel_types);
  ASSERT_NE(types, nullptr) << module_name() << " has no BTF";
  const int types_fd = module_btf(module_name());
  for (const char* function :
       {"kfd_open", "kfd_release", "kfd_ioctl", "kfd_ioctl_create_queue", "kfd_ioctl_destroy_queue",
        "kfd_ioctl_set_cu_mask", "kfd_ioctl_criu", "kfd_procfs_add_queue", "pqm_update_mqd",
        "pqm_destroy_queue", "pqm_uninit"}) {
    SCOPED_TRACE(function);
    const int id = btf__find_by_name_kind(types, function, BTF_KIND_FUNC);
    ASSERT_GT(id, 0);
    const std::array<bpf_insn, 2> return_0{bpf_insn{BPF_ALU64 | BPF_MOV | BPF_K, 0, 0, 0, 0},
                                           bpf_insn{BPF_JMP | BPF_EXIT, 0, 0, 0, 0}};
    LIBBPF_OPTS(bpf_prog_load_opts, options, .expected_attach_type = BPF_TRACE_FENTRY,
                .attach_btf_id = static_cast<std::uint32_t>(id),
                .attach_btf_obj_fd = static_cast<std::uint32_t>(types_fd));
    const int program = bpf_prog_load(BPF_PROG_TYPE_TRACING, "nothing", "GPL", return_0.data(),
                                      return_0.size(), &options);
    EXPECT_GE(program, 0);
    const int link = bpf_raw_tracepoint_open(nullptr, program);
    EXPECT_GE(link, 0);
    ::close(link);
    ::close(program);
  }
  ::close(types_fd);
  btf__free(types);
  btf__free(kernel_types);
}

TEST(KfdDevice, IsACharacterDevice) {
  struct stat info {};
  ASSERT_EQ(::stat("/dev/kfd", &info), 0);
  EXPECT_TRUE(S_ISCHR(info.st_mode));
}

TEST(KfdDevice, TellsItsVersion) {
  kfd_ioctl_get_version_args version{};
  ASSERT_EQ(Kfd().call(AMDKFD_IOC_GET_VERSION, &version), 0);
  EXPECT_EQ(version.major_version, 1U);
  EXPECT_GE(version.minor_version, 11U);
}

TEST(KfdDevice, AnswersAsTheRealOne) {
  const Kfd kfd;
  std::uint32_t queue = 0;
  EXPECT_EQ(kfd.create_queue(&queue, 0), EINVAL);
  EXPECT_EQ(kfd.mask(7, 32), EFAULT);
  EXPECT_EQ(kfd.mask(7, 31), EINVAL);
  EXPECT_EQ(kfd.mask(7, 0), EINVAL);
  EXPECT_EQ(kfd.destroy(7), EINVAL);
  kfd_ioctl_criu_args restore{};
  restore.op = KFD_CRIU_OP_RESTORE;
  EXPECT_EQ(kfd.call(AMDKFD_IOC_CRIU_OP, &restore), EINVAL);
  EXPECT_EQ(kfd.call(_IO('K', 0xff), nullptr), ENOTTY);
}

TEST(KfdDevice, LooksAtTheCommandsNumberOnly) {
  kfd_ioctl_create_queue_args arguments{};
  EXPECT_EQ(Kfd().call(_IOC(_IOC_READ | _IOC_WRITE, 'Z', 2, sizeof arguments), &arguments), EINVAL);
  // Without a size nothing is copied: the driver sees zeros.
  EXPECT_EQ(Kfd().call(0x511a, nullptr), EINVAL);
}

TEST(KfdDevice, IsForTheProcessThatOpenedIt) {
  const Kfd kfd;
  EXPECT_EQ(in_child([&] { return kfd.mask(7, 32); }), EBADF);
}

TEST(KfdDevice, IsReachedBy32BitSystemCallsToo) {
  auto* const version = new (low_memory()) kfd_ioctl_get_version_args{};
  EXPECT_EQ(call_by_int80(Kfd(), AMDKFD_IOC_GET_VERSION, version), 0);
  EXPECT_EQ(version->major_version, 1U);
}

class KfdStandIn : public testing::Test {
 protected:
  void SetUp() override {
    if (!is_stand_in()) GTEST_SKIP() << "without a GPU the real driver has no queues";
    // Queues of tests before may still be on their way out, in a worker of the kernel.
    ASSERT_TRUE(eventually([] { return truth("queues") == 0; }));
    std::ofstream("/sys/kernel/debug/kfd_stand_in/masked_max") << 0;
  }
};

TEST_F(KfdStandIn, CountsMaskedQueues) {
  ASSERT_EQ(in_child([] {
              const Kfd kfd;
              std::array<std::uint32_t, 3> queues{};
              for (auto& queue : queues) {
                if (kfd.create_queue(&queue) != 0) return 1;
              }
              if (truth("queues") != 3 || truth("masked") != 0) return 2;
              if (kfd.mask(queues[0]) != 0 || kfd.mask(queues[1]) != 0) return 3;
              if (kfd.mask(queues[0]) != 0) return 4;  // counts once
              if (truth("masked") != 2 || truth("masked_max") != 2) return 5;
              if (kfd.destroy(queues[0]) != 0 || kfd.destroy(queues[2]) != 0) return 6;
              return truth("queues") == 1 && truth("masked") == 1 && truth("masked_max") == 2 ? 0
                                                                                              : 7;
            }),
            0);
  EXPECT_TRUE(eventually([] { return truth("queues") == 0 && truth("masked") == 0; }));
  EXPECT_EQ(truth("masked_max"), 2);
}

TEST_F(KfdStandIn, GivesEachProcessItsLowestFreeQueueId) {
  const auto ids = [] {
    const Kfd first;
    const Kfd second;  // the same process to the driver
    std::array<std::uint32_t, 4> queues{};
    first.create_queue(&queues[0]);
    second.create_queue(&queues[1]);
    if (first.destroy(queues[0]) != 0) return 1;
    first.create_queue(&queues[2]);
    second.create_queue(&queues[3]);
    return queues == std::array<std::uint32_t, 4>{0, 1, 0, 2} ? 0 : 2;
  };
  EXPECT_EQ(in_child(ids), 0);
  EXPECT_EQ(in_child(ids), 0);
}

TEST_F(KfdStandIn, ClosingTheDeviceKeepsTheQueues) {
  EXPECT_EQ(in_child([] {
              std::uint32_t queue = 0;
              {
                const Kfd kfd;
                if (kfd.create_queue(&queue) != 0 || kfd.mask(queue) != 0) return 1;
              }
              if (truth("masked") != 1) return 2;
              return Kfd().destroy(queue) == 0 && truth("masked") == 0 ? 0 : 3;
            }),
            0);
}

TEST_F(KfdStandIn, ALateQueueIsGoneAllTheSame) {
  EXPECT_EQ(in_child([] {
              const Kfd kfd;
              std::uint32_t queue = 0;
              kfd.create_queue(&queue, any_gpu, late_queue_percentage);
              if (kfd.mask(queue) != 0) return 1;
              if (kfd.destroy(queue) != ETIME) return 2;
              return truth("queues") == 0 && truth("masked") == 0 ? 0 : 3;
            }),
            0);
}

/// A child that has a masked queue and executes `sleep`, with its device closed by that or not.
pid_t executes_with_masked_queue(bool keeps_device) {
  const pid_t child = ::fork();
  if (child == 0) {
    const Kfd kfd;
    std::uint32_t queue = 0;
    if (kfd.create_queue(&queue) == 0 && kfd.mask(queue) == 0) {
      ::fcntl(kfd.fd(), F_SETFD, keeps_device ? 0 : FD_CLOEXEC);
      ::execl("/bin/sleep", "sleep", "60", nullptr);
    }
    ::_exit(1);
  }
  return child;
}

bool executes_sleep(pid_t child) {
  return contents("/proc/" + std::to_string(child) + "/comm") == "sleep\n";
}

TEST_F(KfdStandIn, ExecEndsTheQueues) {
  const pid_t child = executes_with_masked_queue(false);
  EXPECT_TRUE(eventually([&] { return executes_sleep(child) && truth("masked") == 0; }));
  EXPECT_EQ(truth("masked_max"), 1);
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
}

TEST_F(KfdStandIn, QueuesOutliveAnExecThatKeepsTheDeviceOpen) {
  const pid_t child = executes_with_masked_queue(true);
  ASSERT_TRUE(eventually([&] { return executes_sleep(child); }));
  EXPECT_EQ(truth("masked"), 1);
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
  EXPECT_TRUE(eventually([] { return truth("masked") == 0; }));
}

}  // namespace
}  // namespace eclip::test
