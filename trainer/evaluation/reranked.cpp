#include "trainer/evaluation/reranked.h"

#include <algorithm>
#include <limits>
#include <numeric>
#include <tuple>

#include "launch/base/order_keys.h"
#include "launch/base/progress.h"

namespace kt {
namespace {

/// Candidates of a user, the base's best first. Shapes: place, base [n]; ranker [shortlisted].
struct Ranking {
  std::vector<int32_t> place;  // in the user's list
  std::vector<uint32_t> base;  // list keys
  std::vector<uint32_t> ranker;

  /// Puts the shortlisted in the ranker's order.
  void rerank() {
    std::vector<size_t> order(ranker.size());
    std::iota(order.begin(), order.end(), 0);
    std::ranges::stable_sort(order, {}, [&](size_t k) { return ranker[k]; });
    const Ranking before = *this;
    for (size_t k = 0; k < order.size(); ++k) {
      place[k] = before.place[order[k]];
      base[k] = before.base[order[k]];
      ranker[k] = before.ranker[order[k]];
    }
  }

  /// The score of each, in this order.
  std::vector<float> scores() const {
    std::vector<float> scores(place.size());
    for (size_t k = 0; k < place.size(); ++k) {
      const bool listed = k < ranker.size();
      const bool as_before = k > 0 && k != ranker.size() && base[k] == base[k - 1] &&
                             (!listed || ranker[k] == ranker[k - 1]);
      scores[k] = base[k] == kNoNumber ? std::numeric_limits<float>::quiet_NaN()
                  : as_before          ? scores[k - 1]
                                       : static_cast<float>(-static_cast<int64_t>(k));
    }
    return scores;
  }
};

Ranking order_of(std::span<const float> score, std::span<const int32_t> items) {
  Ranking ranking;
  ranking.place.resize(score.size());
  std::iota(ranking.place.begin(), ranking.place.end(), 0);
  std::ranges::sort(ranking.place, {},
                    [&](int32_t i) { return std::tuple(list_key(score[i]), items[i], i); });
  for (const int32_t i : ranking.place) ranking.base.push_back(list_key(score[i]));
  return ranking;
}

/// How many of the best are shortlisted: at most `most`, and numbers alone.
int64_t shortlisted(const Ranking& ranking, int64_t most) {
  const auto numbers = std::ranges::lower_bound(ranking.base, kNoNumber);
  return std::min(most, numbers - ranking.base.begin());
}

/// Asks the ranker for its scores of the shortlisted. Shapes: rankings [lists].
void rerank_lists(const Predictor& ranker, const Pairs& shortlists, ThreadPool& pool,
                  std::vector<Ranking>& rankings) {
  const ProgressBar bar("scores of the ranker", shortlists.size(), "pairs");
  std::vector<float> scores(shortlists.size());
  ranker.predict(shortlists, pool, scores);
  pool.parallel_for(std::ssize(rankings), [&](int64_t list, int) {
    for (int64_t i = shortlists.offsets[list]; i < shortlists.offsets[list + 1]; ++i)
      rankings[list].ranker.push_back(list_key(scores[i]));
    rankings[list].rerank();
  });
}

}  // namespace

void Reranked::predict(const Pairs& pairs, ThreadPool& pool, std::span<float> out) const {
  {
    const ProgressBar bar("scores of the base", pairs.size(), "pairs");
    base_->predict(pairs, pool, out);
  }
  const auto items_of = [&](int64_t list) {
    return std::span(pairs.item)
        .subspan(pairs.offsets[list], pairs.offsets[list + 1] - pairs.offsets[list]);
  };
  std::vector<Ranking> rankings(pairs.user.size());
  pool.parallel_for(std::ssize(rankings), [&](int64_t list, int) {
    const std::span<const int32_t> items = items_of(list);
    rankings[list] = order_of(out.subspan(pairs.offsets[list], items.size()), items);
  });
  Pairs shortlists;
  for (int64_t b = 0; b < pairs.block_count(); ++b) {
    for (int64_t list = pairs.blocks[b]; list < pairs.blocks[b + 1]; ++list) {
      std::vector<int32_t> items;
      for (int64_t k = 0; k < shortlisted(rankings[list], shortlist_); ++k)
        items.push_back(items_of(list)[rankings[list].place[k]]);
      shortlists.add_list(pairs.user[list], items);
    }
    shortlists.end_block();
  }
  rerank_lists(*ranker_, shortlists, pool, rankings);
  pool.parallel_for(std::ssize(rankings), [&](int64_t list, int) {
    const Ranking& ranking = rankings[list];
    const std::vector<float> scores = ranking.scores();
    for (size_t k = 0; k < scores.size(); ++k)
      out[pairs.offsets[list] + ranking.place[k]] = scores[k];
  });
}

std::vector<std::vector<Recommendation>> Reranked::best(const ListsWanted& wanted,
                                                        ThreadPool& pool) const {
  ListsWanted longer = wanted;
  longer.length = std::max(wanted.length, shortlist_);
  std::vector<std::vector<Recommendation>> lists = base_->best(longer, pool);
  std::vector<Ranking> rankings(lists.size());
  Pairs shortlists;
  for (size_t list = 0; list < lists.size(); ++list) {
    std::vector<int32_t> items;
    std::vector<float> scores;
    for (const Recommendation& one : lists[list]) {
      items.push_back(one.item);
      scores.push_back(one.score);
    }
    rankings[list] = order_of(scores, items);
    items.resize(shortlisted(rankings[list], shortlist_));
    shortlists.add_list(wanted.users[list], items);
    shortlists.end_block();
  }
  rerank_lists(*ranker_, shortlists, pool, rankings);
  for (size_t list = 0; list < lists.size(); ++list) {
    const std::vector<Recommendation> before = std::move(lists[list]);
    const std::vector<float> scores = rankings[list].scores();
    lists[list].clear();
    for (size_t k = 0; k < before.size() && std::ssize(lists[list]) < wanted.length; ++k)
      lists[list].push_back({before[rankings[list].place[k]].item, scores[k]});
  }
  return lists;
}

}  // namespace kt
