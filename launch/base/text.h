#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

/// Bytes that others wrote, and what a terminal, a message or a JSON document can take of them.
namespace kt {

/// Bytes of the UTF-8 character that `text` begins with; 0 when it begins with none.
size_t utf8_character(std::string_view text);
bool is_utf8(std::string_view text);

/// The text with control characters (but newlines and tabulators) and bytes that are not UTF-8 as \xNN.
std::string printable(std::string_view text);

/// "1 run", "2 runs".
std::string plural(int64_t count, std::string_view one);

/// What stands between blanks, as of a command line; quotes mean nothing.
std::vector<std::string> words_of(const std::string& text);

}  // namespace kt
