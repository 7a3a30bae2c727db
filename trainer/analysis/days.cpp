#include "trainer/analysis/days.h"

#include <fmt/format.h>

#include <chrono>

namespace kt {

using std::chrono::days;
using std::chrono::sys_days;
using std::chrono::year_month_day;

std::string date_text(int64_t day) {
  const year_month_day date{sys_days{days{day}}};
  return fmt::format("{:04}-{:02}-{:02}", int{date.year()}, unsigned{date.month()},
                     unsigned{date.day()});
}

int64_t day_of(const std::string& date) {
  const year_month_day parts{
      std::chrono::year{std::stoi(date.substr(0, 4))},
      std::chrono::month{static_cast<unsigned>(std::stoi(date.substr(5, 2)))},
      std::chrono::day{static_cast<unsigned>(std::stoi(date.substr(8, 2)))}};
  return sys_days{parts}.time_since_epoch().count();
}

}  // namespace kt
