#include "models/trees/trees.h"

#include <cmath>

#include "launch/base/errors.h"

namespace kt {
namespace {

bool is_whole(float x, float low, float high) {
  return x >= low && x <= high && std::trunc(x) == x;
}

}  // namespace

Trees::Trees(TreesShape shape, std::span<const float> splits, std::span<const float> values,
             int64_t columns, const std::string& where)
    : shape_(shape), values_(values.begin(), values.end()) {
  KT_CHECK(std::ssize(splits) == kSplitNumbers * shape.splits() &&
           std::ssize(values) == shape.values());
  const auto most = static_cast<float>(shape.leaves - 2), leaves = most + 1;
  for (int64_t k = 0; k < shape.splits(); ++k) {
    const float* of = splits.data() + k * kSplitNumbers;
    const Split split{of[0], of[1], of[2], of[3]};
    // A way leads to a later split, so that every row comes to a leaf.
    const auto own = static_cast<float>(k % (shape.leaves - 1));
    const auto leads = [&](float way) {
      return is_whole(way, -leaves, most) && (way <= 0 || way > own);
    };
    if (!is_whole(split.column, 0, static_cast<float>(columns - 1)) || !leads(split.low) ||
        !leads(split.high))
      user_error(
          "{}: split {} is [{}, {}, {}, {}], expected one of {} columns, a threshold and two ways "
          "to later splits or leaves of its tree; train again",
          where, k, split.column, split.threshold, split.low, split.high, columns);
    splits_.push_back(split);
  }
}

std::vector<float> Trees::split_numbers() const {
  std::vector<float> numbers;
  for (const Split& split : splits_)
    numbers.insert(numbers.end(), {split.column, split.threshold, split.low, split.high});
  return numbers;
}

double Trees::score(const float* columns) const {
  double sum = 0;
  const Split* splits = splits_.data();
  const float* values = values_.data();
  for (int64_t tree = 0; tree < shape_.trees; ++tree) {
    int64_t way = 0;
    do {
      const Split& split = splits[way];
      way = static_cast<int64_t>(
          columns[static_cast<int64_t>(split.column)] <= split.threshold ? split.low : split.high);
    } while (way > 0);
    sum += static_cast<double>(values[-way]);
    splits += shape_.leaves - 1;
    values += shape_.leaves;
  }
  return sum;
}

}  // namespace kt
