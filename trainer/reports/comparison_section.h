#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string_view>

#include "trainer/reports/page.h"

namespace kt {

/// The section `id` of a comparison (trainer/comparison/comparison_report.h): metrics with intervals, chance, paired
/// differences and costs by system.
void add_comparison(Page& page, std::string_view id, const nlohmann::json& comparison);

}  // namespace kt
