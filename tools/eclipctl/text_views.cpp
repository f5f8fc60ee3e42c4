#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "ipc/printable.h"
#include "tools/eclipctl/budget_report.h"
#include "tools/eclipctl/views.h"
#include "tools/text/table.h"

namespace eclip::ctl {
namespace {

std::string or_none(std::uint64_t value) {
  return value == 0 ? "" : std::to_string(value);
}

std::string format_ms(std::uint64_t ms) {
  return text::format_duration(std::chrono::milliseconds(static_cast<std::int64_t>(ms)));
}

const char* state_of(const StreamRecord& stream) {
  if (stream.stuck_worker != 0) return "stuck";
  if (stream.draining != 0) return "draining";
  if (stream.holders > 1) return "shared";
  if (stream.lease != 0) return "leased";
  return stream.scheduled != 0 ? "by plan" : "free";
}

/// "12.3 J"; "" where the driver counts no energy, or nothing has run.
std::string format_energy(std::uint64_t mj) {
  return mj == 0 ? "" : fmt::format("{:.1f} J", static_cast<double>(mj) / 1e3);
}

std::string format_device_time(std::uint64_t us) {
  return fmt::format("{:.3f}s", static_cast<double>(us) / 1e6);
}

/// A stream's number; "no mask" for the queue of a scheduled worker.
std::string stream_of(const LeaseRecord& lease) {
  if (lease.stream == Scheduled::no_mask) return "no mask";
  return lease.stream != LeaseAcquire::any_stream ? std::to_string(lease.stream) : "";
}

/// The leases of a scheduled worker that are as they should be: one line for all of them.
bool is_by_plan(const LeaseRecord& lease) {
  return lease.scheduled != 0 && static_cast<LeaseState>(lease.state) == LeaseState::active;
}

/// The first of each scheduled worker's leases stands for the others: `packets` are those of all.
struct LeaseLine {
  LeaseRecord lease;
  std::uint64_t last = 0;  ///< LeaseId of the last of them
  std::uint32_t streams = 1;
};

std::vector<LeaseLine> lines_of(const std::vector<LeaseRecord>& leases) {
  std::vector<LeaseLine> lines;
  for (const LeaseRecord& lease : leases) {
    auto same = std::find_if(lines.begin(), lines.end(), [&](const LeaseLine& line) {
      return is_by_plan(lease) && is_by_plan(line.lease) && line.lease.worker == lease.worker;
    });
    if (same == lines.end()) {
      lines.push_back({.lease = lease, .last = lease.lease});
      continue;
    }
    same->last = lease.lease;
    same->lease.packets += lease.packets;
    same->lease.cu_count = std::max(same->lease.cu_count, lease.cu_count);
    ++same->streams;
  }
  return lines;
}

/// Where a queued lease stands, or for how long the state lasts.
std::string outlook(const LeaseRecord& lease) {
  std::string left = lease.deadline_ms == 0 ? "" : format_ms(lease.deadline_ms) + " left";
  if (static_cast<LeaseState>(lease.state) != LeaseState::queued) return left;
  return fmt::format("{} before it, {}", lease.position, left);
}

}  // namespace

std::string name_of_priority(std::uint32_t priority) {
  switch (static_cast<LeasePriority>(priority)) {
    case LeasePriority::low:
      return "low";
    case LeasePriority::normal:
      return "normal";
    case LeasePriority::high:
      return "high";
  }
  return std::to_string(priority);
}

std::string to_text(const StatusReply& status) {
  std::string text;
  const auto line = [&text](const char* label, const std::string& value) {
    text += fmt::format("{:<16} {}\n", label, value);
  };
  line("eclipd", fmt::format("{}, pid {}, up {}", printable(status.version.str()), status.pid,
                             format_ms(status.uptime_ms)));
  line("GPU", fmt::format("{}, node {}, {} CUs", printable(status.gpu_name.str()), status.gpu_node,
                          status.gpu_cu_count));
  line("streams", fmt::format("{} of {} leased", status.streams_leased, status.stream_count));
  line("lease queue", fmt::format("{} waiting", status.leases_queued));
  line("stream budget",
       fmt::format("{} of {} CU-masked streams", status.stream_count, status.stream_budget));
  line("budget guard", describe(status.budget_tier));
  line("workers",
       fmt::format("{} connected, {} cut off since start", status.workers, status.workers_cut_off));
  line("packets", fmt::format("{} forwarded", status.packets_forwarded));
  line("queue ioctls", fmt::format("{} since ready", status.queue_ioctls_since_ready));
  line("KFD ioctls", status.has_kfd_ioctls != 0
                         ? fmt::format("{} of all processes since start", status.kfd_ioctls)
                         : "- (not measured; eclipctl ioctl show says why)");
  if (status.has_power != 0) {
    line("power", fmt::format("{:.1f} W", status.power_mw / 1e3));
    line("energy", fmt::format("{:.1f} J", static_cast<double>(status.energy_uj) / 1e6));
  } else {
    line("power", "- (the driver reports none)");
  }
  const double rate = static_cast<double>(status.device_time_rate) / 0x1p32;
  if (std::abs(rate - 1) > 0.01)
    line("device time", fmt::format("runs at {:.4f} of host time", rate));
  return text;
}

std::string to_text(const std::vector<StreamRecord>& streams) {
  text::Table table({{"STREAM", text::Align::right},
                     {"CUS", text::Align::right},
                     {"STATE"},
                     {"LEASE", text::Align::right},
                     {"PACKETS", text::Align::right},
                     {"CU MASK"}});
  std::string stuck;
  for (const StreamRecord& stream : streams) {
    if (stream.stuck_worker != 0)
      stuck += fmt::format(
          "stream {} has been at packet {} of worker {} for {}: {} of lease {}; eclipd's log says "
          "more\n",
          stream.stream, stream.stuck_packet, stream.stuck_worker, format_ms(stream.stuck_ms),
          stream.stuck_kernel == 0 ? "a barrier" : fmt::format("kernel {}", stream.stuck_kernel),
          stream.stuck_lease);
    table.add({std::to_string(stream.stream), std::to_string(stream.cu_count), state_of(stream),
               or_none(stream.lease), std::to_string(stream.packets),
               stream.mask.str().empty() ? "no mask" : printable(stream.mask.str())});
  }
  return table.to_string() + stuck;
}

std::string to_text(const std::vector<ClientRecord>& clients) {
  text::Table table({{"WORKER", text::Align::right},
                     {"NAME"},
                     {"PID", text::Align::right},
                     {"UID", text::Align::right},
                     {"COMMAND"},
                     {"LEASES", text::Align::right},
                     {"KERNELS", text::Align::right},
                     {"MEMORY", text::Align::right},
                     {"PACKETS", text::Align::right},
                     {"DEVICE TIME", text::Align::right},
                     {"ENERGY", text::Align::right},
                     {"CONNECTED", text::Align::right},
                     {"FAULT"}});
  for (const ClientRecord& client : clients) {
    const std::error_code fault(static_cast<int>(client.fault), eclip_category());
    table.add({std::to_string(client.worker), printable(client.name.str()),
               std::to_string(client.pid), std::to_string(client.uid),
               printable(client.command.str()), std::to_string(client.leases),
               std::to_string(client.kernels), text::format_bytes(client.memory_bytes),
               std::to_string(client.packets), format_device_time(client.device_us),
               format_energy(client.energy_mj), format_ms(client.connected_ms),
               client.fault == 0 ? "" : fault.message()});
  }
  return table.to_string();
}

std::string to_text(const std::vector<LeaseRecord>& leases) {
  text::Table table({{"LEASE", text::Align::right},
                     {"STATE"},
                     {"STREAM", text::Align::right},
                     {"CUS", text::Align::right},
                     {"WORKER", text::Align::right},
                     {"PID", text::Align::right},
                     {"PRIORITY"},
                     {"SHARE", text::Align::right},
                     {"PACKETS", text::Align::right},
                     {"SINCE", text::Align::right},
                     {"POSITION, TIME LEFT"},
                     {"REASON"}});
  for (const auto& [lease, last, streams] : lines_of(leases)) {
    if (is_by_plan(lease)) {
      table.add({last == lease.lease ? std::to_string(lease.lease)
                                     : fmt::format("{}-{}", lease.lease, last),
                 "by plan", streams == 1 ? stream_of(lease) : fmt::format("{} streams", streams),
                 fmt::format("{}{}", streams == 1 ? "" : "up to ", lease.cu_count),
                 std::to_string(lease.worker), std::to_string(lease.pid), "", "",
                 std::to_string(lease.packets), format_ms(lease.held_ms), "", ""});
      continue;
    }
    const bool has_stream = lease.stream != LeaseAcquire::any_stream;
    const auto reason = static_cast<LeaseEnd>(lease.reason);
    table.add({std::to_string(lease.lease), describe(static_cast<LeaseState>(lease.state)),
               stream_of(lease), has_stream ? std::to_string(lease.cu_count) : "",
               std::to_string(lease.worker), std::to_string(lease.pid),
               name_of_priority(lease.priority),
               lease.share_percent == 0 ? "" : fmt::format("{}%", lease.share_percent),
               std::to_string(lease.packets), format_ms(lease.held_ms), outlook(lease),
               reason == LeaseEnd::none ? "" : describe(reason)});
  }
  return table.to_string();
}

}  // namespace eclip::ctl
