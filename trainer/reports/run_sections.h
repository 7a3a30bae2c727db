#pragma once

#include <nlohmann/json_fwd.hpp>

#include "trainer/reports/page.h"

/// Sections of the report of runs (`runs` of run_numbers.h; at least one). Curves are of the first kMostCurves.
namespace kt {

/// What the runs are, and what they cost.
void add_overview(Page& page, const nlohmann::json& runs);
/// Loss, gradient norm, learning rate and samples/s over steps, with resumes and rewinds.
void add_training(Page& page, const nlohmann::json& runs);
/// Metrics of the validation rows, and of the test table where there are several evaluations, over steps.
void add_validation(Page& page, const nlohmann::json& runs);
/// Where the seconds went.
void add_time(Page& page, const nlohmann::json& runs);
/// All keys of one run; of several, what differs.
void add_configuration(Page& page, const nlohmann::json& runs);
/// What evaluations and folders say beside numbers.
void add_notes(Page& page, const nlohmann::json& runs);

/// A chart of series over steps, by logarithms where one is 30 times another; nothing without a point.
void add_curves(Page& page, const char* title, const char* label, std::vector<Series> series);

}  // namespace kt
