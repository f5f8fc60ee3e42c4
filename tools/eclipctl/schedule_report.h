// `eclipctl client show`: what a worker's scheduler does, by its own word, and its part in the
// plan.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "ipc/messages.h"

namespace eclip::ctl {

struct ScheduleReport {
  ClientRecord client;
  ScheduleRecord schedule;
  nlohmann::json plan;  ///< the plan in force (eclip.plan/1); null: there is none
};

std::string to_text(const ScheduleReport& report);
/// Numbers in the units that their keys name; null for what there is none of.
nlohmann::json to_json(const ScheduleReport& report);

}  // namespace eclip::ctl
