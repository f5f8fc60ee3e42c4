// A plan for people: what each worker gets, what it may expect, and what else was looked at.
#pragma once

#include <span>
#include <string>

#include "daemon/planner/planner.h"

namespace eclip::plan {

std::string plan_report(const planner::Plan& plan, std::span<const planner::Worker> workers,
                        const model::GpuDescription& gpu, planner::Objective objective);
/// The same as JSON, schema eclip.plan/1: pool (masks as CU lists), rows by active set with the
/// stream of each group, predictions, candidates.
std::string plan_json(const planner::Plan& plan, std::span<const planner::Worker> workers,
                      const model::GpuDescription& gpu, planner::Objective objective);

/// The plan's pool as the section of eclipd's configuration that makes eclipd create it.
std::string pool_toml(const planner::Plan& plan);

}  // namespace eclip::plan
