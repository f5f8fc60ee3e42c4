#include "tests/integration/kfdsim/hostile_client.h"

#include <fcntl.h>
#include <linux/kfd_ioctl.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <string>

#include "tests/integration/kfdsim/child_process.h"
#include "tests/integration/kfdsim/gpu_client.h"

namespace eclip::test {
namespace {

constexpr std::uint32_t gpu_id = 49374;
constexpr std::size_t descriptors = 2;

struct Loot {
  Victim victim{};
  int kfd = -1;
  int render = -1;
};

/// The message that carries a Victim, and room for its descriptors.
struct Envelope {
  explicit Envelope(Victim& victim) : part{&victim, sizeof victim} {
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = control.data();
    message.msg_controllen = control.size();
  }
  iovec part;
  alignas(cmsghdr) std::array<char, CMSG_SPACE(descriptors * sizeof(int))> control{};
  msghdr message{};
};

bool receive_victim(int socket, Loot& loot) {
  Envelope envelope(loot.victim);
  if (::recvmsg(socket, &envelope.message, 0) != sizeof(Victim)) return false;
  const cmsghdr* header = CMSG_FIRSTHDR(&envelope.message);
  if (header == nullptr) return false;
  std::array<int, descriptors> fds{};
  std::memcpy(fds.data(), CMSG_DATA(header), sizeof fds);
  loot.kfd = fds[0];
  loot.render = fds[1];
  return true;
}

void reached(const std::string& what) {
  std::puts(what.c_str());
}

/// 0 or the errno.
template <class Args>
int call(int fd, unsigned long command, Args arguments) {
  return ::ioctl(fd, command, &arguments) == 0 ? 0 : errno;
}

void try_its_descriptors(const Loot& loot, int own_kfd) {
  for (unsigned number = AMDKFD_COMMAND_START; number < AMDKFD_COMMAND_END; ++number) {
    std::array<std::byte, 512> argument{};
    const auto command = _IOC(_IOC_READ | _IOC_WRITE, AMDKFD_IOCTL_BASE, number, argument.size());
    if (::ioctl(loot.kfd, command, argument.data()) == 0 || errno != EBADF) {
      reached("ioctl " + std::to_string(number) + " on its /dev/kfd");
    }
  }
  kfd_ioctl_acquire_vm_args acquire{static_cast<std::uint32_t>(loot.render), gpu_id};
  if (call(own_kfd, AMDKFD_IOC_ACQUIRE_VM, acquire) != EINVAL) reached("its address space");
}

void try_its_files(const Loot& loot) {
  namespace fs = std::filesystem;
  int found = 0;
  const std::string directory = "/proc/" + std::to_string(loot.victim.pid) + "/fd";
  for (const auto& entry : fs::directory_iterator(directory)) {
    std::error_code error;
    const std::string target = fs::read_symlink(entry.path(), error);
    if (target.find("/kfd") == std::string::npos &&
        target.find("/renderD128") == std::string::npos) {
      continue;
    }
    ++found;
    if (::open(entry.path().c_str(), O_RDWR | O_CLOEXEC) >= 0) reached(entry.path());
  }
  if (found < 2) reached("nothing: its files were not found");
  for (const auto& [path, its] : {std::pair{"/dev/kfd", loot.kfd},
                                  {"/dev/kfdsim/fs/kfd", loot.kfd},
                                  {"/dev/dri/renderD128", loot.render},
                                  {"/dev/kfdsim/fs/renderD128", loot.render}}) {
    struct stat theirs {};
    struct stat mine {};
    if (::fstat(its, &theirs) != 0 || ::stat(path, &mine) != 0 || theirs.st_ino == mine.st_ino) {
      reached(std::string("its inode as ") + path);
    }
  }
}

/// All that a process's own descriptors can map: writes over doorbells and over the place where the
/// victim's memory lies in its file.
void try_maps(const Loot& loot, int own_kfd) {
  constexpr off_t doorbells = 1LL << 32;
  constexpr std::size_t doorbell_bytes = 8192;
  void* page =
      ::mmap(nullptr, doorbell_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, own_kfd, doorbells);
  if (page != MAP_FAILED) std::memset(page, 0x3f, doorbell_bytes);
  const int own_render = ::open("/dev/dri/renderD128", O_RDWR | O_CLOEXEC);
  page = ::mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, own_render,
                static_cast<off_t>(loot.victim.memory_offset));
  if (page == MAP_FAILED) return;
  if (*static_cast<std::uint64_t*>(page) != 0) reached("its memory");
  std::memset(page, 0x3f, 4096);
}

void try_queues(int kfd) {
  for (std::uint32_t id = 0; id < 1024; ++id) {
    if (call(kfd, AMDKFD_IOC_DESTROY_QUEUE, kfd_ioctl_destroy_queue_args{id, 0}) != EINVAL) {
      reached("DESTROY_QUEUE " + std::to_string(id));
    }
    kfd_ioctl_update_queue_args update{};
    update.queue_id = id;
    if (call(kfd, AMDKFD_IOC_UPDATE_QUEUE, update) != EFAULT) {
      reached("UPDATE_QUEUE " + std::to_string(id));
    }
    std::array<std::uint32_t, 2> none{};
    kfd_ioctl_set_cu_mask_args mask{id, 64, reinterpret_cast<std::uint64_t>(none.data())};
    if (call(kfd, AMDKFD_IOC_SET_CU_MASK, mask) != EFAULT) {
      reached("SET_CU_MASK " + std::to_string(id));
    }
  }
}

void try_events(int kfd) {
  for (const std::uint32_t first : {0U, 1U << 31}) {
    for (std::uint32_t id = first; id < first + KFD_SIGNAL_EVENT_LIMIT; ++id) {
      kfd_event_data data{};
      data.event_id = id;
      kfd_ioctl_wait_events_args wait{};
      wait.events_ptr = reinterpret_cast<std::uint64_t>(&data);
      wait.num_events = 1;
      if (call(kfd, AMDKFD_IOC_SET_EVENT, kfd_ioctl_set_event_args{id, 0}) != EINVAL ||
          call(kfd, AMDKFD_IOC_RESET_EVENT, kfd_ioctl_reset_event_args{id, 0}) != EINVAL ||
          call(kfd, AMDKFD_IOC_WAIT_EVENTS, wait) != EINVAL ||
          call(kfd, AMDKFD_IOC_DESTROY_EVENT, kfd_ioctl_destroy_event_args{id, 0}) != EINVAL) {
        reached("event " + std::to_string(id));
      }
    }
  }
}

void try_buffers(int kfd) {
  std::uint32_t gpu = gpu_id;
  for (std::uint32_t id = 0; id < 1024; ++id) {
    const std::uint64_t handle = std::uint64_t{gpu_id} << 32 | id;
    kfd_ioctl_unmap_memory_from_gpu_args unmap{};
    unmap.handle = handle;
    unmap.device_ids_array_ptr = reinterpret_cast<std::uint64_t>(&gpu);
    unmap.n_devices = 1;
    if (call(kfd, AMDKFD_IOC_UNMAP_MEMORY_FROM_GPU, unmap) != ENOMEM ||
        call(kfd, AMDKFD_IOC_FREE_MEMORY_OF_GPU, kfd_ioctl_free_memory_of_gpu_args{handle}) !=
            EINVAL) {
      reached("buffer " + std::to_string(id));
    }
  }
}

/// Lets a packet complete the victim's signal, or a kernel write over it. Either is a memory fault,
/// after which this process can try nothing more.
void try_packet(const Loot& loot) {
  const auto kernel = kernel_of(10, 10, true);
  const LoadedKernels loaded({&kernel, 1});
  const GpuBuffer arguments(GpuBuffer::Kind::system, 4096);
  arguments.as<replay::MixKernarg>()->output = loot.victim.signal;
  GpuQueue queue;
  if (loot.victim.expects_writes) {
    queue.dispatch(loaded.object(0), nullptr, arguments.gpu());
  } else {
    hsa_barrier_and_packet_t packet{};
    packet.completion_signal.handle = loot.victim.signal;
    queue.submit(&packet, HSA_PACKET_TYPE_BARRIER_AND << HSA_PACKET_HEADER_TYPE);
  }
  // When this one's packets are through, the GPU has looked at the queue above too.
  ChildProcess other({"/proc/self/exe", "work", "20"});
  if (other.wait() != EXIT_SUCCESS) reached("nothing: the helper failed");
}

/// A process that has /dev/kfd but none of libhsakmt's queues, events and buffers: whatever its
/// ids name would be another's.
void try_ids() {
  const int kfd = ::open("/dev/kfd", O_RDWR | O_CLOEXEC);
  try_queues(kfd);
  try_events(kfd);
  try_buffers(kfd);
  ::close(kfd);
}

}  // namespace

bool send_victim(int socket, const Victim& victim, int kfd, int render) {
  Victim copy = victim;
  Envelope envelope(copy);
  cmsghdr* header = CMSG_FIRSTHDR(&envelope.message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  const std::array<int, descriptors> fds{kfd, render};
  header->cmsg_len = CMSG_LEN(sizeof fds);
  std::memcpy(CMSG_DATA(header), fds.data(), sizeof fds);
  return ::sendmsg(socket, &envelope.message, 0) == sizeof(Victim);
}

int hostile_client(int socket) {
  Loot loot;
  if (!receive_victim(socket, loot)) return EXIT_FAILURE;
  try_ids();
  gpu_node();
  const int own_kfd = ::open("/dev/kfd", O_RDWR | O_CLOEXEC);
  try_its_descriptors(loot, own_kfd);
  try_its_files(loot);
  try_maps(loot, own_kfd);
  try_packet(loot);
  std::puts("done");
  return EXIT_SUCCESS;
}

}  // namespace eclip::test
