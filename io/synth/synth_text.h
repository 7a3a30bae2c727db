#pragma once

#include <charconv>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <string_view>

#include "launch/base/parallel_for.h"

/// Text and files of the synthetic replica; internal to io/synth*.cpp.
namespace kt::synth {

/// Writes a new file of `header` and then the text of blocks 0..blocks-1 in order; the text is made by
/// `pool`, one block a thread in memory. Returns bytes written, on disk.
/// Throws: UserError when writing fails.
int64_t write_csv(const std::filesystem::path& path, std::string_view header, int64_t blocks,
                  ThreadPool& pool,
                  const std::function<void(int64_t block, std::string& text)>& make);

inline void put(std::string& text, std::string_view s) { text.append(s); }
inline void put(std::string& text, char c) { text.push_back(c); }
inline void put(std::string& text, int64_t x) {
  char buffer[24];
  text.append(buffer, std::to_chars(buffer, buffer + sizeof buffer, x).ptr);
}
inline void put(std::string& text, int32_t x) { put(text, int64_t{x}); }
/// The shortest digits that read back the same, always with a point or an exponent (`1.0`, `9.5e-05`).
void put(std::string& text, double x);
/// Milliseconds as seconds with the zeros at the end trimmed; whole seconds as `whole_zero ? "5.0" : "5"`.
void put_seconds(std::string& text, int64_t seconds, int32_t milliseconds, bool whole_zero);

/// A day of the replica's calendar, counted from 1970-01-01.
int32_t day_of(int32_t year, int32_t month, int32_t day);
/// 20200705
int32_t yyyymmdd(int32_t day);
/// 2020-07-05
void put_day(std::string& text, int32_t day);
/// `2020-07-05 08:01:09.53`: milliseconds since the epoch as UTC+8.
void put_time(std::string& text, int64_t timestamp_ms);
/// A CSV field, quoted when it holds a comma or a quote. A bare carriage return stays unquoted, as in the
/// original.
void put_field(std::string& text, std::string_view field);

}  // namespace kt::synth
