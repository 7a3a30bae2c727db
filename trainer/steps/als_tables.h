#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "launch/base/parallel_for.h"
#include "launch/collectives/communicator.h"
#include "models/graph/side.h"
#include "models/systems/system.h"
#include "sharding/parameters.h"
#include "trainer/steps/als_pairs.h"

namespace kt {

/// What is known of a table of factors before any factor is: users' and videos', by Side.
struct AlsRows {
  const char* array = nullptr;  ///< of the parameters'
  SidePairs pairs;
  std::vector<double> ridge;    ///< [own rows]: times the squared factors
  std::vector<uint8_t> tested;  ///< [rows]
};

/// Both tables of factors where they are computed with: each whole on every rank, which solves its own rows.
class AlsTables {
 public:
  using Rows = std::array<AlsRows, 2>;
  virtual ~AlsTables() = default;

  /// Tells all ranks of the own rows of a table, and `parameters` of those that it holds. Collective: all ranks.
  virtual void publish(Side) = 0;

  /// What follows from a table. Shapes: gram [width, width]: the sum of h h' over its rows, by blocks over the tree;
  /// gram_of_tested, likewise of the tested ones, empty unless `exclude_block`; squares [own rows]: |row|^2.
  struct Summary {
    std::vector<double> gram, gram_of_tested, squares;
  };
  virtual Summary summary(Side) = 0;

  /// Solves the own rows of a table, the other one held. Returns of each row the sum over its pairs, or nothing where the
  /// equations of one have no solution. Shapes: gram [width, width]: what all pairs add to the equations of a row;
  /// gram_of_tested: to those of a tested one.
  virtual std::optional<std::vector<double>> solve(Side, std::span<const double> gram,
                                                   std::span<const double> gram_of_tested) = 0;
};

/// On the host. Borrows everything.
std::unique_ptr<AlsTables> make_host_als_tables(const AlsFit& fit, Parameters& parameters,
                                                const AlsTables::Rows& rows, Communicator& comm,
                                                ThreadPool& pool);

}  // namespace kt
