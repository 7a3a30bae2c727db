#include "tests/support/browser.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <array>
#include <cstdio>
#include <nlohmann/json.hpp>

namespace kt {

nlohmann::json look_at(const std::filesystem::path& page) {
  const std::string command = fmt::format("'{}' '{}'", KT_BROWSER, page.string());
  std::FILE* pipe = popen(command.c_str(), "r");
  std::string text;
  std::array<char, 1 << 16> part{};
  for (size_t n; (n = std::fread(part.data(), 1, part.size(), pipe)) > 0;)
    text.append(part.data(), n);
  EXPECT_EQ(pclose(pipe), 0) << command;
  nlohmann::json seen = nlohmann::json::parse(text);
  EXPECT_EQ(seen["console"], nlohmann::json::array());
  EXPECT_EQ(seen["outside"], nlohmann::json::array());
  for (const nlohmann::json& picture : seen["pictures"])
    EXPECT_TRUE(picture["marks"].is_number()) << picture;
  return seen;
}

}  // namespace kt
