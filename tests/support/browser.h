#pragma once

#include <filesystem>
#include <nlohmann/json_fwd.hpp>

namespace kt {

/// What a browser without a network finds in a page (browser.py says what), once it has run the page's scripts; fails
/// the test where the console has a line, the page names an address outside of itself, or a picture was not drawn.
nlohmann::json look_at(const std::filesystem::path& page);

}  // namespace kt
