#pragma once

#include <cstdint>
#include <string>

/// Days since 1970-01-01 and their dates, as 2020-07-05.
namespace kt {

std::string date_text(int64_t day);
/// Needs: a text that `date_text` made.
int64_t day_of(const std::string& date);

}  // namespace kt
