// What eclipd answered, as text for people and as JSON for programs.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "ipc/messages.h"

namespace eclip::ctl {

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
