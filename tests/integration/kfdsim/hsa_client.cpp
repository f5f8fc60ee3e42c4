// A user of the HSA runtime (unmodified libhsa-runtime64) that makes the GPU fail:
// hsa_client queue-error KIND | memory-fault | memory-fault-unhandled, or that masks a queue: mask.
#include <hsa/hsa.h>
#include <hsa/hsa_ext_amd.h>

#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <optional>
#include <string>

namespace {

constexpr std::chrono::seconds patience{20};

/// Ends the program when the runtime does not do what it is asked.
void require(hsa_status_t status, const char* what) {
  if (status == HSA_STATUS_SUCCESS) return;
  const char* text = "?";
  hsa_status_string(status, &text);
  std::fprintf(stderr, "%s: %s\n", what, text);
  std::_Exit(3);
}

void say(const std::string& line) {
  std::puts(line.c_str());
  std::fflush(stdout);
}

/// A value that a callback of the runtime delivers.
template <class T>
class Delivery {
 public:
  void put(const T& value) {
    {
      const std::lock_guard lock(mutex_);
      value_ = value;
    }
    arrived_.notify_all();
  }
  std::optional<T> wait() {
    std::unique_lock lock(mutex_);
    arrived_.wait_for(lock, patience, [this] { return value_.has_value(); });
    return value_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable arrived_;
  std::optional<T> value_;
};

hsa_agent_t gpu_agent() {
  hsa_agent_t gpu{};
  hsa_iterate_agents(
      [](hsa_agent_t agent, void* found) {
        hsa_device_type_t type{};
        hsa_agent_get_info(agent, HSA_AGENT_INFO_DEVICE, &type);
        if (type != HSA_DEVICE_TYPE_GPU) return HSA_STATUS_SUCCESS;
        *static_cast<hsa_agent_t*>(found) = agent;
        return HSA_STATUS_INFO_BREAK;
      },
      &gpu);
  return gpu;
}

class Queue {
 public:
  explicit Queue(hsa_agent_t agent) {
    require(hsa_queue_create(
                agent, 64, HSA_QUEUE_TYPE_SINGLE,
                [](hsa_status_t status, hsa_queue_t*, void* self) {
                  static_cast<Queue*>(self)->error.put(status);
                },
                this, 0, 0, &queue_),
            "hsa_queue_create");
  }
  ~Queue() { require(hsa_queue_destroy(queue_), "hsa_queue_destroy"); }
  Queue(const Queue&) = delete;
  Queue& operator=(const Queue&) = delete;

  /// Any 64 bytes, whose header is written last.
  void submit(const void* packet) const {
    const std::uint64_t index = hsa_queue_add_write_index_relaxed(queue_, 1);
    auto* slot = static_cast<std::byte*>(queue_->base_address) + index % queue_->size * 64;
    std::uint32_t first = 0;
    std::memcpy(&first, packet, sizeof first);
    std::memcpy(slot + 4, static_cast<const std::byte*>(packet) + 4, 60);
    __atomic_store_n(reinterpret_cast<std::uint32_t*>(slot), first, __ATOMIC_RELEASE);
    hsa_signal_store_screlease(queue_->doorbell_signal, static_cast<hsa_signal_value_t>(index));
  }

  /// Whether a barrier packet completes.
  [[nodiscard]] bool works() const {
    hsa_signal_t done{};
    require(hsa_signal_create(1, 0, nullptr, &done), "hsa_signal_create");
    hsa_barrier_and_packet_t packet{};
    packet.header = HSA_PACKET_TYPE_BARRIER_AND << HSA_PACKET_HEADER_TYPE;
    packet.completion_signal = done;
    submit(&packet);
    constexpr std::uint64_t timeout_ticks = 20'000'000'000;
    const auto value = hsa_signal_wait_scacquire(done, HSA_SIGNAL_CONDITION_LT, 1, timeout_ticks,
                                                 HSA_WAIT_STATE_BLOCKED);
    hsa_signal_destroy(done);
    return value < 1;
  }

  [[nodiscard]] hsa_status_t mask() const {
    const std::uint32_t words[2] = {0x7fff, 0};
    return hsa_amd_queue_cu_set_mask(queue_, 64, words);
  }

  Delivery<hsa_status_t> error;

 private:
  hsa_queue_t* queue_ = nullptr;
};

hsa_kernel_dispatch_packet_t dispatch_of(std::uint64_t kernel_object) {
  hsa_kernel_dispatch_packet_t packet{};
  packet.header = HSA_PACKET_TYPE_KERNEL_DISPATCH << HSA_PACKET_HEADER_TYPE;
  packet.setup = 1;
  packet.workgroup_size_x = 64;
  packet.grid_size_x = 64;
  packet.workgroup_size_y = packet.workgroup_size_z = 1;
  packet.grid_size_y = packet.grid_size_z = 1;
  packet.kernel_object = kernel_object;
  return packet;
}

/// Host memory that the GPU can reach, for a kernel object of zeros.
std::uint64_t reachable_memory(hsa_agent_t gpu) {
  hsa_agent_t cpu{};
  hsa_iterate_agents(
      [](hsa_agent_t agent, void* found) {
        hsa_device_type_t type{};
        hsa_agent_get_info(agent, HSA_AGENT_INFO_DEVICE, &type);
        if (type == HSA_DEVICE_TYPE_CPU) *static_cast<hsa_agent_t*>(found) = agent;
        return HSA_STATUS_SUCCESS;
      },
      &cpu);
  hsa_amd_memory_pool_t pool{};
  hsa_amd_agent_iterate_memory_pools(
      cpu,
      [](hsa_amd_memory_pool_t candidate, void* found) {
        *static_cast<hsa_amd_memory_pool_t*>(found) = candidate;
        return HSA_STATUS_INFO_BREAK;
      },
      &pool);
  void* memory = nullptr;
  require(hsa_amd_memory_pool_allocate(pool, 4096, 0, &memory), "hsa_amd_memory_pool_allocate");
  require(hsa_amd_agents_allow_access(1, &gpu, nullptr, memory), "hsa_amd_agents_allow_access");
  std::memset(memory, 0, 4096);
  return reinterpret_cast<std::uint64_t>(memory);
}

/// Submits a packet that is wrong in the given way; false when there is no such way.
bool submit_bad_packet(const Queue& queue, const std::string& kind, hsa_agent_t gpu) {
  auto packet = dispatch_of(reachable_memory(gpu));
  if (kind == "type") {
    packet.header = HSA_PACKET_TYPE_AGENT_DISPATCH << HSA_PACKET_HEADER_TYPE;
  } else if (kind == "vendor") {
    packet.header = HSA_PACKET_TYPE_VENDOR_SPECIFIC << HSA_PACKET_HEADER_TYPE;
    packet.setup = 77;
  } else if (kind == "dimensions") {
    packet.grid_size_x = 0;
  } else if (kind == "code") {
    packet.kernel_object = 0;
  } else if (kind == "workgroup") {
    packet.workgroup_size_x = 4096;
  } else if (kind == "group-memory") {
    packet.group_segment_size = 1U << 20;
  } else {
    return false;
  }
  queue.submit(&packet);
  return true;
}

int queue_error(const std::string& kind) {
  const hsa_agent_t gpu = gpu_agent();
  const Queue other(gpu);
  Queue broken(gpu);
  if (!submit_bad_packet(broken, kind, gpu)) return 2;
  const auto status = broken.error.wait();
  if (!status) return EXIT_FAILURE;
  say(std::to_string(*status));
  say(other.works() ? "others work" : "others are stopped");
  const Queue later(gpu);
  say(later.works() ? "new ones work" : "new ones are stopped");
  return EXIT_SUCCESS;
}

int memory_fault(bool handled) {
  Delivery<hsa_amd_gpu_memory_fault_info_t> fault;
  if (handled) {
    require(hsa_amd_register_system_event_handler(
                [](const hsa_amd_event_t* event, void* delivery) {
                  if (event->event_type != HSA_AMD_GPU_MEMORY_FAULT_EVENT) return HSA_STATUS_ERROR;
                  static_cast<Delivery<hsa_amd_gpu_memory_fault_info_t>*>(delivery)->put(
                      event->memory_fault);
                  return HSA_STATUS_SUCCESS;
                },
                &fault),
            "hsa_amd_register_system_event_handler");
  }
  const hsa_agent_t gpu = gpu_agent();
  const Queue queue(gpu);
  const auto packet = dispatch_of(0x123440);
  queue.submit(&packet);
  const auto info = fault.wait();
  if (!info) return EXIT_FAILURE;
  char line[64];
  std::snprintf(line, sizeof line, "%#lx %u %s", static_cast<unsigned long>(info->virtual_address),
                info->fault_reason_mask, info->agent.handle == gpu.handle ? "GPU" : "?");
  say(line);
  return EXIT_SUCCESS;
}

/// What a refused CU mask is to a program.
int mask() {
  const Queue queue(gpu_agent());
  say(queue.mask() == HSA_STATUS_SUCCESS ? "masked" : "not masked");
  say(queue.works() ? "the queue works" : "the queue is stopped");
  return EXIT_SUCCESS;
}

}  // namespace

int main(int argc, char** argv) {
  const std::string command = argc > 1 ? argv[1] : "";
  require(hsa_init(), "hsa_init");
  int status = 2;
  if (command == "queue-error" && argc > 2) status = queue_error(argv[2]);
  if (command == "mask") status = mask();
  if (command == "memory-fault") status = memory_fault(true);
  if (command == "memory-fault-unhandled") status = memory_fault(false);
  if (status == 2) {
    std::fprintf(stderr,
                 "hsa_client queue-error type|vendor|dimensions|code|workgroup|group-memory | "
                 "memory-fault | memory-fault-unhandled | mask\n");
  }
  require(hsa_shut_down(), "hsa_shut_down");
  return status;
}
