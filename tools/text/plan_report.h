// A plan (eclip.plan/1, daemon/planner/plan_document.h) as text for people.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

namespace eclip::text {

// The document may come from anywhere: what it does not say, or not as expected, shows as "-".

/// Which plan it is, its pool, and the stream of each worker in each active set.
std::string plan_table(const nlohmann::json& plan);

/// For all workers at once: streams, switches, times and energy of each, beside alone, unmasked and
/// at home; what was rejected and why; latency bounds that are not kept; the objective.
std::string plan_explanation(const nlohmann::json& plan);

/// What is another in `to`: pool, workers, streams by active set, and the objective.
std::string plan_difference(const nlohmann::json& from, const nlohmann::json& to);

}  // namespace eclip::text
