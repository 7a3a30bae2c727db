#pragma once

#include <nlohmann/json_fwd.hpp>

#include "trainer/reports/page.h"

/// Sections of what evaluations of runs found (`runs` of run_numbers.h; at least one).
namespace kt {

/// The metrics that most look at, with intervals and chance.
void add_metrics(Page& page, const nlohmann::json& runs);
/// By tenths of duration, activity and popularity, where runs were evaluated by groups.
void add_groups(Page& page, const nlohmann::json& runs);
/// Every metric of every run.
void add_all_metrics(Page& page, const nlohmann::json& runs);

}  // namespace kt
