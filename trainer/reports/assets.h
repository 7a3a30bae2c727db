#pragma once

#include <string_view>

namespace kt {

// Files that are put into pages.
std::string_view chart_library();  ///< Chart.js: MIT licence, which it names
std::string_view page_script();    ///< page.js
std::string_view page_style();     ///< page.css

}  // namespace kt
