#include "daemon/packet_vetting.h"

namespace eclip::daemon {
namespace {

constexpr std::uint32_t max_workgroup_size = 1024;
constexpr std::uint64_t kernarg_alignment = 16;

tl::unexpected<Error> refuse(std::string text) {
  return fail(Errc::malformed, std::move(text));
}

std::uint16_t header_of(hsa_packet_type_t type, bool barrier) {
  return static_cast<std::uint16_t>(
      type << HSA_PACKET_HEADER_TYPE | (barrier ? 1 : 0) << HSA_PACKET_HEADER_BARRIER |
      HSA_FENCE_SCOPE_SYSTEM << HSA_PACKET_HEADER_SCACQUIRE_FENCE_SCOPE |
      HSA_FENCE_SCOPE_SYSTEM << HSA_PACKET_HEADER_SCRELEASE_FENCE_SCOPE);
}

/// How far use `a` is ahead of use `b` of the same signal; negative: behind.
std::int32_t distance(std::uint32_t a, std::uint32_t b) {
  return static_cast<std::int32_t>(a - b);
}

/// Checks the completion signal and puts it into `vetted`; returns its GPU address, 0 for none.
Result<std::uint64_t> vet_completion(const SignalUse& use, const WorkerObjects& objects,
                                     VettedPacket& vetted) {
  if (use.generation == 0) return 0;
  if (use.signal >= objects.signals.size())
    return refuse("completion signal " + std::to_string(use.signal) + "; there are " +
                  std::to_string(objects.signals.size()));
  if (!objects.is_ahead(use) || !objects.is_complete(use.signal))
    return refuse("completion signal " + std::to_string(use.signal) +
                  " is used again before its last use has completed");
  vetted.completion = use;
  return objects.signal_gpu_address(use.signal);
}

Result<void> vet_dispatch(const LeasePacket& packet, const WorkerObjects& objects,
                          VettedPacket& vetted) {
  const LeaseDispatch& from = packet.dispatch;
  if (from.kernel == 0 || from.kernel > objects.kernels.size())
    return refuse("kernel handle " + std::to_string(from.kernel) + " was never given out");
  const auto& kernel = objects.kernels[from.kernel - 1];
  std::uint64_t workgroup_size = 1;
  for (std::size_t axis = 0; axis < 3; ++axis) {
    if (from.grid_size[axis] == 0 || from.workgroup_size[axis] == 0)
      return refuse("grid or workgroup size 0 on axis " + std::to_string(axis));
    workgroup_size *= from.workgroup_size[axis];
  }
  if (workgroup_size > max_workgroup_size)
    return refuse("a workgroup of " + std::to_string(workgroup_size) + " work items; at most " +
                  std::to_string(max_workgroup_size));
  if (from.group_segment_bytes < kernel.group_segment_bytes ||
      from.group_segment_bytes > objects.max_group_segment_bytes)
    return refuse("group segment of " + std::to_string(from.group_segment_bytes) +
                  " bytes; this kernel may have " + std::to_string(kernel.group_segment_bytes) +
                  " to " + std::to_string(objects.max_group_segment_bytes));
  std::uint64_t kernarg_address = 0;
  if (kernel.kernarg_bytes > 0) {
    const auto memory = objects.memory.find(from.kernarg_memory);
    if (memory == objects.memory.end())
      return refuse("memory handle " + std::to_string(from.kernarg_memory) +
                    " of the kernel arguments is not known");
    if (kernel.kernarg_bytes > memory->second.bytes ||
        from.kernarg_offset > memory->second.bytes - kernel.kernarg_bytes ||
        from.kernarg_offset % kernarg_alignment != 0)
      return refuse("kernel arguments at offset " + std::to_string(from.kernarg_offset) +
                    " are misaligned or outside their memory of " +
                    std::to_string(memory->second.bytes) + " bytes");
    kernarg_address = memory->second.gpu_address + from.kernarg_offset;
  }
  auto& to = vetted.image.dispatch;
  to.header =
      header_of(HSA_PACKET_TYPE_KERNEL_DISPATCH, (packet.flags & LeasePacket::flag_barrier) != 0);
  to.setup = 3 << HSA_KERNEL_DISPATCH_PACKET_SETUP_DIMENSIONS;
  to.workgroup_size_x = from.workgroup_size[0];
  to.workgroup_size_y = from.workgroup_size[1];
  to.workgroup_size_z = from.workgroup_size[2];
  to.grid_size_x = from.grid_size[0];
  to.grid_size_y = from.grid_size[1];
  to.grid_size_z = from.grid_size[2];
  to.group_segment_size = from.group_segment_bytes;
  to.kernel_object = kernel.object;
  // The field's type is a pointer of the GPU's address space.
  to.kernarg_address =
      reinterpret_cast<void*>(kernarg_address);  // NOLINT(performance-no-int-to-ptr)
  return {};
}

Result<void> vet_barrier(const LeasePacket& packet, const WorkerObjects& objects,
                         VettedPacket& vetted) {
  const bool is_or = packet.type == LeasePacketType::barrier_or;
  bool one_complete = false;
  bool one_missing = false;
  bool one_cancelled = false;
  for (const SignalUse& dependency : packet.barrier.dependencies) {
    if (dependency.generation == 0) continue;
    if (dependency.signal >= objects.signals.size())
      return refuse("dependency on signal " + std::to_string(dependency.signal) + "; there are " +
                    std::to_string(objects.signals.size()));
    const std::int32_t ahead =
        distance(dependency.generation, objects.signals[dependency.signal].generation);
    if (dependency.generation == objects.signals[dependency.signal].cancelled) {
      one_cancelled = true;
    } else if (ahead > 0) {
      one_missing = true;
      vetted.missing = dependency;
    } else if (ahead < 0 || objects.is_complete(dependency.signal)) {
      one_complete = true;
    } else {
      vetted.waits_for[vetted.wait_count++] = dependency.signal;
    }
  }
  // One dropped dependency spoils an AND at once, an OR when nothing else can fulfil it.
  const bool may_be_fulfilled = one_complete || one_missing || vetted.wait_count > 0;
  if (one_cancelled && !(is_or && may_be_fulfilled)) {
    vetted.cancelled = true;
    return {};
  }
  if (is_or && one_complete) {
    vetted.wait_count = 0;
  } else if (one_missing) {
    vetted.hold = true;
    return {};
  }
  auto& to = vetted.image.barrier;
  // An OR that is fulfilled already becomes an AND of nothing: the standard does not say what an OR
  // of nothing is.
  to.header = header_of(
      is_or && vetted.wait_count > 0 ? HSA_PACKET_TYPE_BARRIER_OR : HSA_PACKET_TYPE_BARRIER_AND,
      (packet.flags & LeasePacket::flag_barrier) != 0);
  for (std::uint32_t i = 0; i < vetted.wait_count; ++i)
    to.dep_signal[i].handle = objects.signal_gpu_address(vetted.waits_for[i]);
  return {};
}

}  // namespace

Result<void> vet_packet(const LeasePacket& packet, const WorkerObjects& objects, std::uint8_t flags,
                        VettedPacket& vetted) {
  vetted = {};
  if ((packet.flags & ~flags) != 0)
    return refuse("packet flags " + std::to_string(packet.flags) + "; this lease's may have " +
                  std::to_string(flags));
  const auto completion = vet_completion(packet.completion, objects, vetted);
  if (!completion) return tl::unexpected(completion.error());
  Result<void> checked;
  switch (packet.type) {
    case LeasePacketType::dispatch:
      checked = vet_dispatch(packet, objects, vetted);
      vetted.image.dispatch.completion_signal.handle = *completion;
      break;
    case LeasePacketType::barrier_and:
    case LeasePacketType::barrier_or:
      checked = vet_barrier(packet, objects, vetted);
      vetted.image.barrier.completion_signal.handle = *completion;
      break;
    default:
      return refuse("unknown packet type " + std::to_string(static_cast<unsigned>(packet.type)));
  }
  return checked;
}

}  // namespace eclip::daemon
