// What eclipd answered, as text for people and as JSON for programs.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "ipc/lease_slot.h"
#include "ipc/messages.h"

namespace eclip::ctl {

/// "low", "normal", "high"; a number that is none of them as it is.
std::string name_of_priority(std::uint32_t priority);

std::string to_text(const StatusReply& status);
std::string to_text(const std::vector<StreamRecord>& streams);
std::string to_text(const std::vector<ClientRecord>& clients);
std::string to_text(const std::vector<LeaseRecord>& leases);

// Numbers in the units that their keys name; null for what there is none of.
nlohmann::json to_json(const StatusReply& status);
nlohmann::json to_json(const std::vector<StreamRecord>& streams);
nlohmann::json to_json(const std::vector<ClientRecord>& clients);
nlohmann::json to_json(const std::vector<LeaseRecord>& leases);

}  // namespace eclip::ctl
