#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

/// Regression trees as plain arrays: what a run keeps of them, and all that a score needs.
namespace kt {

/// How many there are, and of what size at most.
struct TreesShape {
  int64_t trees = 0;
  int64_t leaves = 2;  ///< of a tree
  int64_t splits() const { return trees * (leaves - 1); }
  int64_t values() const { return trees * leaves; }
};

/// A row goes to `low` where its column is at most the threshold, else to `high`: to another split of the tree where
/// that is above 0, else to the leaf of that number, less its sign. All 0: both ways to the first leaf. Whole numbers
/// are exact.
struct Split {
  float column = 0;
  float threshold = 0;
  float low = 0;
  float high = 0;
};

/// Numbers of a split in the array of them.
inline constexpr int64_t kSplitNumbers = 4;

class Trees {
 public:
  /// Nothing but first leaves of 0.
  explicit Trees(TreesShape shape)
      : shape_(shape), splits_(shape.splits()), values_(shape.values()) {}
  /// Shapes: splits [shape.splits(), kSplitNumbers], values [shape.values()], tree by tree, the root first. Throws:
  /// UserError naming `where` for splits that are none: of a column that is not among `columns`, or a way to nowhere.
  Trees(TreesShape shape, std::span<const float> splits, std::span<const float> values,
        int64_t columns, const std::string& where);

  const TreesShape& shape() const { return shape_; }
  std::span<Split> splits_of(int64_t tree) {
    return std::span(splits_).subspan(tree * (shape_.leaves - 1), shape_.leaves - 1);
  }
  std::span<float> values_of(int64_t tree) {
    return std::span(values_).subspan(tree * shape_.leaves, shape_.leaves);
  }
  /// As the constructor takes them.
  std::vector<float> split_numbers() const;
  std::span<const float> values() const { return values_; }

  /// The sum of the leaves that a row comes to, in double, tree by tree. Shapes: columns of the row.
  double score(const float* columns) const;

 private:
  TreesShape shape_;
  std::vector<Split> splits_;
  std::vector<float> values_;
};

}  // namespace kt
