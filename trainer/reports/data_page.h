#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

namespace kt {

/// A data set's numbers (trainer/analysis/analysis.h) as a page.
std::string data_page(const nlohmann::json& numbers);

}  // namespace kt
