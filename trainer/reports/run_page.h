#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

namespace kt {

/// The report of runs, sweeps and comparisons (run_numbers.h) as a page. Throws: json::exception for what is none.
std::string run_page(const nlohmann::json& numbers);

}  // namespace kt
