#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "models/systems/system.h"
#include "models/trees/trees.h"

/// LightGBM, by its C interface: lib_lightgbm.so, which launch/setup.sh fetches, loaded where trees are found. Scores need
/// none of it. Source: Ke et al., "LightGBM: A highly efficient gradient boosting decision tree", NIPS 2017; Burges,
/// "From RankNet to LambdaRank to LambdaMART: An overview", MSR-TR-2010-82.
namespace kt {

/// What trees are found from. Shapes: N rows, those of a user one after the other.
struct TreeRows {
  int64_t width = 0;
  std::span<const float> columns;     ///< [N, width], each a number
  std::span<const float> target;      ///< [N]
  std::span<const int32_t> of_users;  ///< how many rows each user has; N in all
};

struct FoundTrees {
  Trees trees;
  std::vector<double> outputs;  ///< [N] LightGBM's own of the rows
  double loss =
      0;  ///< a row: the squared error, or where an order is found 1 - NDCG of users' rows
};

/// Finds trees in one thread, the same bits wherever that library runs. A heartbeat after each tree. Throws: UserError for
/// a library that cannot be loaded, is of another version, or ends with an error of its own.
FoundTrees find_trees(const TreeRows& rows, const TreesFit& fit, uint64_t seed);

}  // namespace kt
