#pragma once

#include <cstdint>
#include <span>

#include "trainer/evaluation/metrics/user_metrics.h"

/// Metrics of one user as the reference systems computed them, under names that say so.
///
/// feature_mlp.ndcg@10_on_ids calls the ids of a user's candidates by label descending the truth and those by score
/// descending the prediction, and ranks the places of these two lists by the second: the gain of rank i is the id
/// that the truth has where the prediction has the i-th largest id. The rounded form makes both lists ascending by
/// (label or score rounded half to even, id). Ties of the first form are by id ascending; a user counts with more
/// than ten candidates.
///
/// two_tower.recall_repeated_rows is a reconstruction: its source takes a user's relevant rows (label 1 or more) as
/// a list and its recommendations as a set, so a video counts once among the hits and as often as it has rows in
/// what they are divided by. Here it is over the user's rows of the test table and the first ten of them by score.
///
/// cosine.jaccard@50 is what the first 50 by score and the 50 highest labels have in common, over all that is in either.
/// als.ndcg_any_hit is a reconstruction, since no code of it was published: the discount 1 / log2(rank + 1) of the first
/// relevant row (label 1 or more) among the first ten alone, 0 without one, so that one hit at the top is ideal.
namespace kt::metrics {

/// What labels and ids decide for them; the order and the marks of `facts` are there already.
void quirk_facts(const Context& context, const User& user, Worker& worker, UserFacts& facts,
                 std::span<double> chance);
/// What scores do; the top of the ranked list and its keys are in `worker`.
void quirk_values(const Context& context, const User& user, const UserFacts& facts,
                  std::span<const float> score, Worker& worker, std::span<double> values);

}  // namespace kt::metrics
