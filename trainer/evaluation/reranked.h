#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "trainer/evaluation/predictor.h"

namespace kt {

/// A user's best candidates by one predictor, in the order of another; the others follow in the first one's. Scores are
/// an order alone: 0 for the best, then -1, -2, ...; what both put at one place shares it. Of the shortlisted, equal ones
/// of the ranker, and last those it has no number for, keep the base's order. What the base has no number for is never
/// shortlisted, and stays no number.
class Reranked final : public Predictor {
 public:
  /// `shortlist` candidates of a user: the base's best, of equal ones the first items.
  Reranked(std::unique_ptr<Predictor> base, std::unique_ptr<Predictor> ranker, int64_t shortlist)
      : base_(std::move(base)), ranker_(std::move(ranker)), shortlist_(shortlist) {}

  void predict(const Pairs& pairs, ThreadPool& pool, std::span<float> out) const override;
  std::vector<std::vector<Recommendation>> best(const ListsWanted& wanted,
                                                ThreadPool& pool) const override;

 private:
  std::unique_ptr<Predictor> base_, ranker_;
  int64_t shortlist_;
};

}  // namespace kt
