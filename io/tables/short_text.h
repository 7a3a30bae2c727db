#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <string_view>

/// Texts of up to 8 bytes as one word: most fields of a table are, and a loop over their bytes costs a
/// mispredicted branch each.
namespace kt {

constexpr size_t kShortText = 8;

/// The bytes of a text of up to 8, the first one lowest, zeros above the last; nothing outside it is read.
inline uint64_t short_text(std::string_view text) {
  const size_t size = text.size();
  const char* const bytes = text.data();
  if (size >= 4) {
    uint32_t head, tail;  // they may overlap, in equal bytes
    std::memcpy(&head, bytes, 4);
    std::memcpy(&tail, bytes + size - 4, 4);
    return head | uint64_t{tail} << 8 * (size - 4);
  }
  if (size == 0) return 0;
  const auto byte = [&](size_t at) {
    return uint64_t{static_cast<unsigned char>(bytes[at])} << 8 * at;
  };
  return byte(0) | byte(size / 2) | byte(size - 1);
}

/// A text of 1 to 8 digits as a number; nothing for anything else.
inline std::optional<uint32_t> short_digits(std::string_view text) {
  const size_t size = text.size();
  if (size - 1 >= kShortText) return std::nullopt;
  constexpr uint64_t kZeros = 0x3030303030303030, kHigh = 0xF0F0F0F0F0F0F0F0;
  uint64_t digits = short_text(text) << 8 * (8 - size) | kZeros >> 8 >> 8 * (size - 1);
  // A digit is 0x3?, and is so after adding 6.
  if ((digits & kHigh) != kZeros || ((digits + 0x0606060606060606) & kHigh) != kZeros)
    return std::nullopt;
  // Neighbouring digits to pairs, pairs to fours, fours to eight.
  digits = (digits & 0x0F0F0F0F0F0F0F0F) * (10 << 8 | 1) >> 8;
  digits = (digits & 0x00FF00FF00FF00FF) * (100 << 16 | 1) >> 16;
  return static_cast<uint32_t>((digits & 0x0000FFFF0000FFFF) * (uint64_t{10'000} << 32 | 1) >> 32);
}

}  // namespace kt
