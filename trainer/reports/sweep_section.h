#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string_view>

#include "trainer/reports/page.h"

namespace kt {

/// The section `id` of a sweep (`sweeps` of run_numbers.h): leaderboard, what each key does, curves of the best.
void add_sweep(Page& page, std::string_view id, const nlohmann::json& sweep);

}  // namespace kt
