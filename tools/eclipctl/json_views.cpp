#include <nlohmann/json.hpp>

#include "tools/eclipctl/budget_report.h"
#include "tools/eclipctl/views.h"

namespace eclip::ctl {
namespace {

using nlohmann::json;

template <class Record>
json list_of(const std::vector<Record>& records, json (*convert)(const Record&)) {
  json list = json::array();
  for (const Record& record : records) list.push_back(convert(record));
  return list;
}

json stream_json(const StreamRecord& stream) {
  return {{"stream", stream.stream},
          {"cu_count", stream.cu_count},
          {"lease", stream.lease != 0 ? json(stream.lease) : json(nullptr)},
          {"holders", stream.holders},
          {"scheduled", stream.scheduled},
          {"stuck", stream.stuck_worker != 0 ? json{{"worker", stream.stuck_worker},
                                                    {"lease", stream.stuck_lease},
                                                    {"packet", stream.stuck_packet},
                                                    {"kernel", stream.stuck_kernel},
                                                    {"for_ms", stream.stuck_ms}}
                                             : json(nullptr)},
          {"draining", stream.draining != 0},
          {"packets", stream.packets},
          {"mask", stream.mask.str().empty() ? json(nullptr) : json(stream.mask.str())}};
}

json client_json(const ClientRecord& client) {
  const std::error_code fault(static_cast<int>(client.fault), eclip_category());
  return {{"worker", client.worker},
          {"name", client.name.str()},
          {"pid", client.pid},
          {"uid", client.uid},
          {"command", client.command.str()},
          {"leases", client.leases},
          {"kernels", client.kernels},
          {"memory_objects", client.memory_objects},
          {"memory_bytes", client.memory_bytes},
          {"packets", client.packets},
          {"device_time_s", static_cast<double>(client.device_us) / 1e6},
          {"energy_j", client.energy_mj != 0 ? json(static_cast<double>(client.energy_mj) / 1e3)
                                             : json(nullptr)},
          {"connected_ms", client.connected_ms},
          {"fault", client.fault != 0 ? json(fault.message()) : json(nullptr)}};
}

json lease_json(const LeaseRecord& lease) {
  const auto state = static_cast<LeaseState>(lease.state);
  const auto reason = static_cast<LeaseEnd>(lease.reason);
  const bool has_stream = lease.stream != LeaseAcquire::any_stream;
  const bool has_mask = lease.stream != Scheduled::no_mask;
  return {{"lease", lease.lease},
          {"state", describe(state)},
          {"reason", reason != LeaseEnd::none ? json(describe(reason)) : json(nullptr)},
          {"scheduled", lease.scheduled != 0},
          {"stream", has_stream && has_mask ? json(lease.stream) : json(nullptr)},
          {"cu_count", has_stream ? json(lease.cu_count) : json(nullptr)},
          {"worker", lease.worker},
          {"pid", lease.pid},
          {"priority", name_of_priority(lease.priority)},
          {"share_percent", lease.share_percent != 0 ? json(lease.share_percent) : json(nullptr)},
          {"position", state == LeaseState::queued ? json(lease.position) : json(nullptr)},
          {"ends_in_ms", lease.deadline_ms != 0 ? json(lease.deadline_ms) : json(nullptr)},
          {"packets", lease.packets},
          {"device_time_s", static_cast<double>(lease.device_us) / 1e6},
          {"held_ms", lease.held_ms}};
}

}  // namespace

json to_json(const StatusReply& status) {
  const bool has_power = status.has_power != 0;
  return {
      {"version", status.version.str()},
      {"pid", status.pid},
      {"uptime_ms", status.uptime_ms},
      {"gpu",
       {{"name", status.gpu_name.str()},
        {"node", status.gpu_node},
        {"cu_count", status.gpu_cu_count}}},
      {"stream_count", status.stream_count},
      {"streams_leased", status.streams_leased},
      {"leases_queued", status.leases_queued},
      {"stream_budget", status.stream_budget},
      {"budget_guard", describe(status.budget_tier)},
      {"workers", status.workers},
      {"workers_cut_off", status.workers_cut_off},
      {"packets_forwarded", status.packets_forwarded},
      {"dispatches_forwarded", status.dispatches_forwarded},
      {"queue_ioctls_since_ready", status.queue_ioctls_since_ready},
      {"kfd_ioctls", status.has_kfd_ioctls != 0 ? json(status.kfd_ioctls) : json(nullptr)},
      {"power_w", has_power ? json(status.power_mw / 1e3) : json(nullptr)},
      {"energy_j", has_power ? json(static_cast<double>(status.energy_uj) / 1e6) : json(nullptr)},
      {"device_time_rate", static_cast<double>(status.device_time_rate) / 0x1p32}};
}

json to_json(const std::vector<StreamRecord>& streams) {
  return list_of(streams, stream_json);
}
json to_json(const std::vector<ClientRecord>& clients) {
  return list_of(clients, client_json);
}
json to_json(const std::vector<LeaseRecord>& leases) {
  return list_of(leases, lease_json);
}

}  // namespace eclip::ctl
