#include <fmt/core.h>

#include <cmath>

#include "ipc/printable.h"
#include "tools/eclipctl/table.h"
#include "tools/eclipctl/views.h"

namespace eclip::ctl {
namespace {

std::string or_none(std::uint64_t value) {
  return value == 0 ? "" : std::to_string(value);
}

std::string format_ms(std::uint64_t ms) {
  return format_duration(std::chrono::milliseconds(static_cast<std::int64_t>(ms)));
}

const char* state_of(const StreamRecord& stream) {
  if (stream.draining != 0) return "draining";
  return stream.lease != 0 ? "leased" : "free";
}

}  // namespace

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
  line("stream budget",
       fmt::format("{} of {} CU-masked streams", status.stream_count, status.stream_budget));
  line("workers",
       fmt::format("{} connected, {} cut off since start", status.workers, status.workers_cut_off));
  line("packets", fmt::format("{} forwarded", status.packets_forwarded));
  line("queue ioctls", fmt::format("{} since ready", status.queue_ioctls_since_ready));
  if (status.has_kfd_ioctls != 0)
    line("KFD ioctls", fmt::format("{} of all processes since start", status.kfd_ioctls));
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
  Table table({{"STREAM", Align::right},
               {"CUS", Align::right},
               {"STATE"},
               {"LEASE", Align::right},
               {"PACKETS", Align::right},
               {"CU MASK"}});
  for (const StreamRecord& stream : streams)
    table.add({std::to_string(stream.stream), std::to_string(stream.cu_count), state_of(stream),
               or_none(stream.lease), std::to_string(stream.packets),
               printable(stream.mask.str())});
  return table.to_string();
}

std::string to_text(const std::vector<ClientRecord>& clients) {
  Table table({{"WORKER", Align::right},
               {"NAME"},
               {"PID", Align::right},
               {"UID", Align::right},
               {"COMMAND"},
               {"LEASES", Align::right},
               {"KERNELS", Align::right},
               {"MEMORY", Align::right},
               {"PACKETS", Align::right},
               {"CONNECTED", Align::right},
               {"FAULT"}});
  for (const ClientRecord& client : clients) {
    const std::error_code fault(static_cast<int>(client.fault), eclip_category());
    table.add({std::to_string(client.worker), printable(client.name.str()),
               std::to_string(client.pid), std::to_string(client.uid),
               printable(client.command.str()), std::to_string(client.leases),
               std::to_string(client.kernels), format_bytes(client.memory_bytes),
               std::to_string(client.packets), format_ms(client.connected_ms),
               client.fault == 0 ? "" : fault.message()});
  }
  return table.to_string();
}

std::string to_text(const std::vector<LeaseRecord>& leases) {
  Table table({{"LEASE", Align::right},
               {"STREAM", Align::right},
               {"CUS", Align::right},
               {"WORKER", Align::right},
               {"PID", Align::right},
               {"PACKETS", Align::right},
               {"HELD", Align::right}});
  for (const LeaseRecord& lease : leases)
    table.add({std::to_string(lease.lease), std::to_string(lease.stream),
               std::to_string(lease.cu_count), std::to_string(lease.worker),
               std::to_string(lease.pid), std::to_string(lease.packets), format_ms(lease.held_ms)});
  return table.to_string();
}

}  // namespace eclip::ctl
