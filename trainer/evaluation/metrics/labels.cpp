#include "trainer/evaluation/metrics/labels.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <string_view>

#include "launch/base/errors.h"

namespace kt {

namespace {

/// Whether `text` is the prefix and then nothing but a number, which `value` becomes.
template <class Number>
bool read_after(std::string_view prefix, std::string_view text, Number& value) {
  if (!text.starts_with(prefix)) return false;
  const char* const end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data() + prefix.size(), end, value);
  return error == std::errc() && stop == end;
}

BinaryLabel binary_label(const std::string& name) {
  BinaryLabel label{.name = name};
  if (read_after("ratio>=", name, label.threshold) && std::isfinite(label.threshold))
    label.kind = BinaryLabel::Kind::kThreshold;
  else if (read_after("top-", name, label.top) && label.top >= 1)
    label.kind = BinaryLabel::Kind::kTop;
  else if (name != "duration-p80")
    user_error(
        "evaluate.labels: got {}, expected ratio>=X with a number X, top-N with N of 1 or more, or "
        "duration-p80; mend its name or take it out",
        name);
  return label;
}

}  // namespace

std::vector<BinaryLabel> binary_labels(std::span<const std::string> names) {
  if (names.size() > kMostLabels)
    user_error("evaluate.labels: got {} labels, expected {} at most; take some out", names.size(),
               kMostLabels);
  std::vector<BinaryLabel> labels;
  for (const std::string& name : names) labels.push_back(binary_label(name));
  return labels;
}

const BinaryLabel* highest_threshold(std::span<const BinaryLabel> labels) {
  const BinaryLabel* highest = nullptr;
  for (const BinaryLabel& label : labels)
    if (label.kind == BinaryLabel::Kind::kThreshold &&
        (highest == nullptr || label.threshold > highest->threshold))
      highest = &label;
  return highest;
}

void mark_top(std::span<const double> label, std::span<const uint32_t> by_label, int64_t top,
              std::span<uint8_t> relevant) {
  const auto n = std::ssize(label);
  std::fill(relevant.begin(), relevant.end(), static_cast<uint8_t>(n <= top));
  if (n <= top) return;
  // Of the lowest label among them, as many as are left, from the first on.
  const double lowest = label[by_label[static_cast<size_t>(n - top)]];
  const auto same = std::partition_point(by_label.begin(), by_label.end(),
                                         [&](uint32_t at) { return label[at] < lowest; });
  const auto higher =
      std::partition_point(same, by_label.end(), [&](uint32_t at) { return label[at] == lowest; });
  for (auto at = higher; at != by_label.end(); ++at) relevant[*at] = 1;
  const auto left = top - (by_label.end() - higher);
  for (auto at = same; at != same + left; ++at) relevant[*at] = 1;
}

}  // namespace kt
