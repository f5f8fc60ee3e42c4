// Control messages between eclipd and its clients: fixed-size, versioned, over a SOCK_SEQPACKET
// socket. A client sends one request and waits for its reply (list requests: records, then `end`).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <type_traits>

#include "ipc/result.h"

namespace eclip {

enum class MessageType : std::uint16_t {
  // requests
  hello = 1,
  lease_acquire = 2,
  lease_release = 3,
  memory_allocate = 4,
  memory_free = 5,
  code_load = 6,
  kernel_register = 7,
  get_status = 8,
  list_streams = 9,
  list_clients = 10,
  list_leases = 11,
  lease_claim = 12,
  lease_revoke = 13,
  list_ioctls = 14,
  list_kfd_processes = 15,
  get_budget = 16,
  list_denials = 17,
  get_plan = 18,
  list_plans = 19,
  apply_plan = 20,
  choose_plan = 21,
  schedule = 22,
  get_schedule = 23,
  // replies
  error = 100,
  ok = 101,  ///< payload Handle
  welcome = 102,
  lease_granted = 103,
  memory_allocated = 104,
  status = 105,
  stream_record = 106,
  client_record = 107,
  lease_record = 108,
  end = 109,
  lease_queued = 110,
  ioctl_record = 111,
  kfd_process_record = 112,
  budget = 113,
  denial_record = 114,
  plan_part = 115,
  plan_record = 116,
  scheduled = 117,
  schedule_record = 118,
};

struct MessageHeader {
  static constexpr std::uint32_t expected_magic = 0x504c4345;  // "ECLP"
  static constexpr std::uint16_t protocol_major = 2;           ///< other majors are refused
  static constexpr std::uint16_t protocol_minor = 4;

  std::uint32_t magic;
  std::uint16_t major;
  std::uint16_t minor;
  MessageType type;
  std::uint16_t reserved;
  std::uint32_t sequence;  ///< the client's choice; the reply repeats it
};

inline constexpr std::size_t message_bytes = 256;
inline constexpr std::size_t message_payload_bytes = message_bytes - sizeof(MessageHeader);

/// One message, exactly as it travels.
struct Message {
  MessageHeader header;
  std::array<std::byte, message_payload_bytes> payload;
};
static_assert(sizeof(Message) == message_bytes);

/// Text of bounded length; always zero-terminated after assign().
template <std::size_t N>
struct Text {
  std::array<char, N> chars;
  void assign(std::string_view text) {
    chars.fill('\0');
    std::memcpy(chars.data(), text.data(), std::min(text.size(), N - 1));
  }
  /// What stands before the first zero, at most N characters.
  [[nodiscard]] std::string str() const { return {chars.data(), ::strnlen(chars.data(), N)}; }
};

// Payloads. All little endian, standard layout, fixed width; the sizes are part of the protocol and
// restated in tests/unit/ipc/layout_test.cpp.

/// hello. Reply: welcome, with the fds of the board, the worker state and the worker request
/// regions.
struct Hello {
  Text<64> worker_name;  ///< what the client calls itself; shown, not trusted
  // Since minor version 3; all zero: not said.
  Text<64> profile;       ///< name of its profile, for the plan
  double requests_per_s;  ///< that it expects; 0: not known
};
struct Welcome {
  std::uint64_t worker;  ///< WorkerId
  std::uint64_t epoch;   ///< of the eclipd
};

/// lease_acquire. Reply: lease_granted with the fd of the lease ring; lease_queued when none that
/// fits is free and wait_ms is not 0; or error (Errc::no_stream, Errc::quota_exceeded).
struct LeaseAcquire {
  static constexpr std::uint32_t any_stream = 0xffffffff;
  std::uint32_t stream;    ///< StreamId, or any_stream: the daemon chooses by cu_count
  std::uint32_t cu_count;  ///< CUs wanted; the smallest free stream with at least as many
  /// Percent of the GPU's CUs that the stream may have at most (but never less than the smallest
  /// stream), whatever cu_count asks for, and the lease's weight where several leases share a
  /// stream; 0: no limit, weight 100.
  std::uint32_t share_percent;
  std::uint32_t priority;     ///< LeasePriority
  std::uint32_t wait_ms;      ///< host time that it may stay queued; 0: not at all
  std::uint32_t duration_ms;  ///< host time after which it expires unless renewed; 0: never
};
enum class LeasePriority : std::uint32_t { low = 0, normal = 1, high = 2 };

struct LeaseGranted {
  std::uint64_t lease;     ///< LeaseId
  std::uint32_t stream;    ///< StreamId
  std::uint32_t cu_count;  ///< CUs of its mask
  std::uint32_t slot;      ///< index of WorkerState::leases and WorkerRequest::leases
  std::uint32_t reserved;
};
/// The worker waits until its LeaseSlot says `offered`, and sends lease_claim (Handle: the lease),
/// whose reply is lease_granted. lease_release gives up.
struct LeaseQueued {
  std::uint64_t lease;
  std::uint32_t slot;
  std::uint32_t position;  ///< how many are before it
};

/// lease_revoke, from a tool. Errc::access_denied unless the sender is root or of the same uid as
/// the lease's worker; Errc::not_found. Reply: ok.
struct LeaseRevoke {
  std::uint64_t lease;
  std::uint32_t grace_ms;  ///< host time; LeaseRevoke::default_grace: leases.grace_ms
  std::uint32_t reserved;
  static constexpr std::uint32_t default_grace = 0xffffffff;
};

/// schedule, once for a worker: it gets a lease on every stream of the pool, and on a queue
/// without a CU mask, that it uses as the plan says, in turn with others that the plan sends there
/// (docs/scheduler.md). They take no stream from anybody, and count as one in limits. Reply:
/// scheduled, with the fds of the active set and of the LeaseRings. Errc::already_in_use when it
/// has them, Errc::quota_exceeded.
struct Schedule {
  std::uint32_t latency_class;  ///< LatencyClass
  std::uint32_t reserved;
};
/// The leases of a worker that is scheduled: those of the pool's streams, in the pool's order; then
/// that of the queue without a mask, if there was one left.
struct Scheduled {
  static constexpr std::uint32_t no_mask = 0xfffffffe;  ///< stream of the last one
  struct ScheduledLease {
    std::uint64_t lease;     ///< LeaseId
    std::uint32_t stream;    ///< StreamId, or no_mask
    std::uint32_t cu_count;  ///< CUs of the stream
    std::uint32_t slot;      ///< index of WorkerState::leases
    std::uint32_t reserved;
  };
  std::uint32_t count;
  std::uint32_t reserved;
  std::array<ScheduledLease, 8> leases;
};

/// lease_release, lease_claim, memory_free: the handle; code_load: bytes and a memfd with the
/// image. Reply: ok, but for lease_claim.
struct Handle {
  std::uint64_t value;
};

/// memory_allocate. Reply: memory_allocated, with a memfd unless device_local.
struct MemoryAllocate {
  static constexpr std::uint32_t flag_device_local = 1;  ///< VRAM, no host mapping
  std::uint64_t bytes;
  std::uint32_t flags;
  std::uint32_t reserved;
};
struct MemoryAllocated {
  std::uint64_t gpu_address;
  std::uint64_t bytes;   ///< rounded up to pages
  std::uint32_t memory;  ///< handle
  std::uint32_t reserved;
};

/// kernel_register. Reply: ok with the kernel handle.
struct KernelRegister {
  std::uint32_t code;           ///< handle from code_load
  std::uint32_t kernarg_bytes;  ///< size of the kernel's argument segment
  std::uint64_t offset;         ///< of the kernel object in the image, 64-byte aligned
};

struct ErrorReply {
  std::int32_t code;  ///< an Errc
  Text<224> text;
};

/// How the budget of CU-masked streams is kept.
struct BudgetTier {
  enum Kind : std::uint32_t {
    none = 0,         ///< eclipd knows its own queues only
    tracepoints = 1,  ///< queues of all processes are counted, and none can be refused
    guard = 2,        ///< masks are refused where the policy says so
  };
  enum Policy : std::uint32_t { off = 0, audit = 1, enforce = 2 };
  std::uint32_t kind;
  std::uint32_t policy;      ///< in force, of the guard; else the configuration's
  std::uint32_t verdict;     ///< of the guard: a bpf::GuardVerdict
  std::uint32_t accounting;  ///< of the guard: a guard_accounting
};

struct StatusReply {
  Text<32> version;
  Text<64> gpu_name;
  std::uint32_t pid;
  std::uint32_t gpu_node;
  std::uint32_t gpu_cu_count;
  std::uint32_t stream_count;
  std::uint32_t streams_leased;
  std::uint32_t stream_budget;
  std::uint32_t workers;
  std::uint32_t reserved;
  std::uint64_t uptime_ms;  ///< host time
  std::uint64_t packets_forwarded;
  std::uint64_t dispatches_forwarded;  ///< packets but for barriers
  std::uint64_t workers_cut_off;
  std::uint64_t queue_ioctls_since_ready;  ///< queue and CU-mask ioctls by eclipd after its start
  std::uint64_t energy_uj;                 ///< device energy since the driver's counter began
  std::uint32_t power_mw;                  ///< device power now
  std::uint32_t has_power;                 ///< 1: the two fields above were read from hwmon
  std::uint64_t device_time_rate;          ///< Board::device_time_rate
  std::uint64_t kfd_ioctls;                ///< of all processes since eclipd's start
  std::uint32_t has_kfd_ioctls;            ///< 1: the probe that counts them is attached
  std::uint32_t leases_queued;
  BudgetTier budget_tier;
};

struct StreamRecord {
  std::uint32_t stream;
  std::uint32_t cu_count;
  std::uint64_t lease;     ///< 0: free
  std::uint64_t packets;   ///< forwarded since start
  std::uint32_t draining;  ///< 1: its last holder is gone, its packets still run
  std::uint32_t holders;   ///< leases on it but for scheduled ones; `lease` is the first
  Text<160> mask;          ///< CU list in the HSA_CU_MASK grammar; cut when longer; empty: no mask
  // What the watchdog (forwarder.watchdog_s) says of it.
  std::uint64_t stuck_worker;  ///< WorkerId; 0: nothing
  std::uint64_t stuck_lease;
  std::uint64_t stuck_packet;  ///< its number in the hardware queue
  std::uint32_t stuck_kernel;  ///< the worker's handle; 0: a barrier
  std::uint32_t stuck_ms;      ///< host time that it has been the oldest unfinished one
  std::uint32_t scheduled;     ///< scheduled leases on it
  std::uint32_t reserved;
};

struct ClientRecord {
  std::uint64_t worker;
  std::uint32_t pid;
  std::uint32_t uid;
  std::uint32_t leases;
  std::uint32_t kernels;
  std::uint32_t memory_objects;
  std::uint32_t fault;  ///< Errc; 0: none
  std::uint64_t memory_bytes;
  std::uint64_t packets;
  std::uint64_t connected_ms;
  std::uint64_t device_us;  ///< device time that its packets kept streams busy
  std::uint64_t energy_mj;  ///< its share of the GPU's energy: by CUs x device time; 0: not known
  Text<64> name;
  Text<32> command;  ///< /proc/PID/comm
};

struct LeaseRecord {
  std::uint64_t lease;
  std::uint64_t worker;
  std::uint32_t stream;    ///< LeaseAcquire::any_stream: none
  std::uint32_t cu_count;  ///< of the stream
  std::uint32_t pid;
  std::uint32_t state;   ///< LeaseState
  std::uint32_t reason;  ///< LeaseEnd
  std::uint32_t priority;
  std::uint32_t share_percent;
  std::uint32_t position;     ///< queued: how many are before it
  std::uint64_t packets;      ///< forwarded
  std::uint64_t device_us;    ///< device time that they kept the stream busy
  std::uint64_t held_ms;      ///< or has been queued
  std::uint64_t deadline_ms;  ///< until the state ends by itself (LeaseSlot::deadline_ns); 0: never
  std::uint32_t scheduled;    ///< 1: of schedule; `stream` may be Scheduled::no_mask
  std::uint32_t reserved;
};

/// get_schedule: a Handle, the WorkerId. What its scheduler reports (SchedulerReport, which is the
/// worker's own word). Errc::not_found.
struct ScheduleRecord {
  std::uint64_t worker;
  std::uint32_t is_scheduled;  ///< 0: it leases streams itself, and the rest is 0
  std::uint32_t latency_class;
  std::uint32_t has_part;  ///< 1: in the plan in force
  std::uint32_t seat;
  std::uint32_t is_active;
  std::uint32_t drift_permille;  ///< observed time of its groups in permille of the predicted
  std::uint64_t requests;
  std::uint64_t scheduled;
  std::array<std::uint64_t, 8> bypassed;  ///< [BypassReason]
  std::array<std::uint64_t, 4> switches;  ///< [SwitchReason]
  std::uint64_t barriers;
  std::uint64_t packets;
};

/// What one KFD command has cost one process since eclipd's start, in host time. list_ioctls and
/// list_kfd_processes: Errc::unsupported, with the reason, when eclipd does not measure.
struct IoctlRecord {
  std::uint32_t pid;     ///< 0: all processes that have ended, or were too many at a time
  std::uint32_t number;  ///< _IOC_NR of the command
  std::uint64_t count;
  std::uint64_t errors;
  std::uint64_t total_ns;
  std::uint64_t errors_ns;  ///< of these in calls that failed
  std::uint64_t max_ns;
  std::array<std::uint32_t, 32> buckets;  ///< [b]: took 2^b to 2^(b+1) - 1 ns
  Text<32> command;                       ///< /proc/PID/comm
};

/// A process that has made KFD ioctls and has not ended.
struct KfdProcessRecord {
  enum Role : std::uint32_t { other = 0, eclipd = 1, worker = 2 };
  std::uint32_t pid;
  std::uint32_t uid;
  std::uint32_t role;
  std::uint32_t queues;         ///< compute queues on eclipd's GPU
  std::uint32_t masked_queues;  ///< of these with a CU mask
  std::uint32_t queues_elsewhere;
  /// Of `queues` those that the driver lists and eclipd did not see being created: whether they
  /// have masks is not known.
  std::uint32_t queues_from_before;
  std::uint32_t reserved;
  std::uint64_t ioctls;
  std::uint64_t errors;
  std::uint64_t total_ns;  ///< in ioctls that have returned but WAIT_EVENTS, host time
  Text<32> command;
};

/// The budget of CU-masked streams of eclipd's GPU, and what all processes have on it.
struct BudgetReply {
  std::uint32_t budget;          ///< CU-masked streams
  std::uint32_t pool_streams;    ///< of these eclipd has
  std::uint32_t masked_queues;   ///< of all processes, eclipd's too
  std::uint32_t queues;          ///< compute queues of all processes, masked or not
  std::uint32_t hardware_slots;  ///< queues that the hardware holds at a time; 0: not reported
  std::uint32_t processes;       ///< that have queues
  std::uint32_t vmids;           ///< processes that the hardware holds at a time; 0: not known
  std::uint32_t reserved;
  BudgetTier tier;
  std::uint64_t unseen;     ///< calls and queues that could not be accounted
  std::uint64_t refused;    ///< by the guard since it was installed
  std::uint64_t audited;    ///< would have been refused
  std::uint64_t unchecked;  ///< calls that reached the driver past the guard
  std::int64_t in_use;      ///< of the budget, as the guard counts
  Text<144> why;            ///< there is no guard
};

/// What a process was refused, or would have been.
struct DenialRecord {
  std::uint32_t pid;
  std::uint32_t uid;
  std::uint32_t reason;  ///< of the latest: a guard_reason
  std::uint32_t number;  ///< _IOC_NR of its command; 0: no ioctl
  std::uint64_t refused;
  std::uint64_t audited;
  std::uint64_t process_start_ns;  ///< CLOCK_BOOTTIME: the pid alone may be used again
  Text<32> command;
};

/// get_plan: a Handle, the epoch of a plan of the history, or 0 for the one in force. Reply: its
/// JSON (eclip.plan/1) in parts, then `end`. Errc::not_found, Errc::unsupported (eclipd does not
/// plan).
struct PlanPart {
  std::uint32_t bytes;  ///< of `text`
  std::array<char, 232> text;
};
/// apply_plan: a Handle (bytes) with a memfd that holds such a document; it is pinned. Reply: ok
/// with its epoch. Errc::access_denied unless the sender is root or of eclipd's uid,
/// Errc::malformed, Errc::invalid_argument.
/// choose_plan: PlanChoice. Reply and errors as of apply_plan, and Errc::not_found.
struct PlanChoice {
  enum Action : std::uint32_t {
    pin = 0,     ///< publish the plan of that epoch again and keep it; 0: the one before
    unpin = 1,   ///< plan automatically again
    replan = 2,  ///< make a new plan now; reply: 0
  };
  std::uint64_t epoch;
  std::uint32_t action;
  std::uint32_t reserved;
};

/// A plan of the history, oldest first.
struct PlanRecord {
  std::uint64_t epoch;
  std::uint64_t made_at;  ///< Unix time, s
  double value;           ///< of the objective, expected over the active sets
  std::uint32_t workers;
  std::uint32_t in_force;
  std::uint32_t pinned;
  std::uint32_t reserved;
  Text<96> reason;  ///< why it was made
  Text<96> names;   ///< of the workers; cut when longer
};

/// A message of the given type and payload.
template <class Payload>
Message make_message(MessageType type, std::uint32_t sequence, const Payload& payload) {
  static_assert(std::is_trivially_copyable_v<Payload> && sizeof(Payload) <= message_payload_bytes);
  Message message{};
  message.header = {.magic = MessageHeader::expected_magic,
                    .major = MessageHeader::protocol_major,
                    .minor = MessageHeader::protocol_minor,
                    .type = type,
                    .reserved = 0,
                    .sequence = sequence};
  std::memcpy(message.payload.data(), &payload, sizeof payload);
  return message;
}

/// The payload of a message whose header has been checked.
template <class Payload>
Payload payload_of(const Message& message) {
  static_assert(std::is_trivially_copyable_v<Payload> && sizeof(Payload) <= message_payload_bytes);
  Payload payload;
  std::memcpy(&payload, message.payload.data(), sizeof payload);
  return payload;
}

/// Checks magic and version. Errc::malformed, Errc::version_mismatch with both versions.
Result<void> check_header(const MessageHeader& header);

/// The Error that an error reply carries.
Error error_of(const Message& message);
/// An error reply for `error`; text that does not fit is cut.
Message make_error(std::uint32_t sequence, const Error& error);

}  // namespace eclip
