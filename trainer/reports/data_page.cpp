#include "trainer/reports/data_page.h"

#include <nlohmann/json.hpp>

#include "trainer/reports/page.h"

namespace kt {

std::string data_page(const nlohmann::json& numbers) {
  return Page(numbers.at("dataset").at("path").get<std::string>(), "").html();
}

}  // namespace kt
