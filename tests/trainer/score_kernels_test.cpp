// What lists of the best are made of, on devices and on the host, against plain loops.
#include "trainer/devices/score_kernels.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <random>
#include <set>
#include <vector>

#include "trainer/evaluation/predictor.h"

namespace kt {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

/// Scores of a catalogue, and who has seen what of it. Shapes: score [users, items].
struct Catalogue {
  int64_t users, items;
  std::vector<float> score;
  std::vector<uint8_t> left_out;
  SeenItems seen;

  /// Many ties, zeros of both signs, and what is no number.
  Catalogue(int64_t of_users, int64_t of_items, uint32_t seed) : users(of_users), items(of_items) {
    std::mt19937 random(seed);
    const std::vector<float> odd{0.f, -0.f, kInfinity, -kInfinity, kNaN, -kNaN};
    for (int64_t k = 0; k < users * items; ++k)
      score.push_back(random() % 7 == 0 ? odd[random() % odd.size()]
                                        : static_cast<float>(random() % 9) / 4 - 1);
    for (int64_t i = 0; i < items; ++i) left_out.push_back(random() % 8 == 0);
    seen.offsets.push_back(0);
    for (int64_t u = 0; u < users; ++u) {
      const unsigned share = u == 1 ? 1 : 3;  // the second user has seen everything
      for (int32_t i = 0; i < items; ++i)
        if (random() % share == 0) seen.item.push_back(i);
      seen.offsets.push_back(std::ssize(seen.item));
    }
  }

  /// One best after the other.
  std::vector<int32_t> plain_best(int64_t user, int64_t length, bool with_seen) const {
    const float* scores = score.data() + user * items;
    std::set<int32_t> gone;
    if (with_seen) gone.insert(seen.of(user).begin(), seen.of(user).end());
    std::vector<int32_t> list;
    while (std::ssize(list) < length) {
      int32_t best = -1;
      for (int32_t i = 0; i < items; ++i) {
        if (left_out[i] || gone.contains(i)) continue;
        if (best < 0 || (std::isnan(scores[best]) && !std::isnan(scores[i])) ||
            scores[i] > scores[best])
          best = i;
      }
      if (best < 0) break;
      list.push_back(best);
      gone.insert(best);
    }
    return list;
  }
};

/// As bits, since what is no number equals nothing.
std::vector<uint32_t> bits(std::span<const float> values) {
  std::vector<uint32_t> result;
  for (const float value : values) result.push_back(std::bit_cast<uint32_t>(value));
  return result;
}

TEST(ScoreKernels, TheBestAreThoseOfAPlainLoop) {
  for (const bool backwards : {false, true})
    for (const int64_t items : {1, 7, 200})
      for (const int64_t length : {int64_t{1}, int64_t{3}, int64_t{40}, items})
        for (const bool with_seen : {false, true}) {
          if (length > items) continue;
          const Catalogue given(5, items, static_cast<uint32_t>(items + length));
          std::vector<uint32_t> keys(given.users * items);
          std::vector<int32_t> chosen(given.users * length), best(chosen), count(given.users);
          std::vector<float> scores(given.users * length);
          std::vector<int32_t> counts(kTeamThreads + 1);
          const kernel::BestItems body{
              .items = items,
              .length = length,
              .score = given.score.data(),
              .left_out = given.left_out.data(),
              .seen_offsets = with_seen ? given.seen.offsets.data() : nullptr,
              .seen = given.seen.item.data(),
              .key = keys.data(),
              .chosen = chosen.data(),
              .best = best.data(),
              .best_score = scores.data(),
              .count = count.data()};
          for (int64_t user = given.users; user-- > 0;)
            body(Team{.backwards = backwards}, user, counts.data());
          for (int64_t user = 0; user < given.users; ++user) {
            const std::vector<int32_t> expected = given.plain_best(user, length, with_seen);
            ASSERT_EQ(count[user], std::ssize(expected));
            const auto from = best.begin() + user * length;
            EXPECT_EQ(std::vector<int32_t>(from, from + count[user]), expected)
                << items << " items, " << length << " of user " << user;
            std::vector<float> theirs;
            for (const int32_t item : expected) theirs.push_back(given.score[user * items + item]);
            EXPECT_EQ(bits(std::span(scores).subspan(user * length, count[user])), bits(theirs));
          }
        }
}

/// Predicts what it is given.
class GivenScores final : public Predictor {
 public:
  explicit GivenScores(const Catalogue& given) : given_(given) {}
  void predict(const Pairs& pairs, ThreadPool&, std::span<float> out) const override {
    auto to = out.begin();
    for (size_t list = 0; list < pairs.user.size(); ++list)
      for (int64_t k = pairs.offsets[list]; k < pairs.offsets[list + 1]; ++k)
        *to++ = given_.score[pairs.user[list] * given_.items + pairs.item[k]];
  }

 private:
  const Catalogue& given_;
};

TEST(ScoreKernels, TheHostsListsAreThoseOfAPlainLoop) {
  ThreadPool pool(2);
  // Of the second, the host has two users at a time.
  for (const auto& [users, items] : {std::pair<int64_t, int64_t>{5, 200}, {5, 500'000}}) {
    const Catalogue given(users, items, 4);
    std::vector<int32_t> all(users);
    std::iota(all.begin(), all.end(), 0);
    const SeenItems none;
    for (const bool with_seen : {false, true}) {
      const int64_t length = items > 1000 ? 3 : items;
      const auto lists = GivenScores(given).best(
          {all, length, given.left_out, with_seen ? given.seen : none}, pool);
      ASSERT_EQ(std::ssize(lists), users);
      for (int64_t user = 0; user < users; ++user) {
        std::vector<int32_t> list;
        for (const auto& [item, score] : lists[user]) {
          list.push_back(item);
          EXPECT_EQ(std::bit_cast<uint32_t>(score),
                    std::bit_cast<uint32_t>(given.score[user * items + item]));
        }
        EXPECT_EQ(list, given.plain_best(user, length, with_seen));
      }
    }
  }
}

TEST(ScoreKernels, PairsAreThoseOfTheLists) {
  Pairs pairs;
  const std::vector<int32_t> rows{40, 7, 7, 12}, some{3, 1, 4, 1, 5};
  std::vector<int32_t> expected;
  for (const size_t list : {0U, 1U, 2U, 3U}) {
    const size_t count = list == 1 ? 0 : list + 2;
    pairs.add_list(static_cast<int32_t>(list), std::span(some).first(count));
    expected.insert(expected.end(), count, rows[list]);
  }
  std::vector<int32_t> users(pairs.size(), -1);
  const kernel::SpreadUsers spread{pairs.offsets.data(), rows.data(), 4, users.data()};
  for (int64_t k = pairs.size(); k-- > 0;) spread(k);
  EXPECT_EQ(users, expected);

  std::vector<int32_t> user(12, -1), item(12, -1);
  const kernel::CataloguePairs all{rows.data(), 3, user.data(), item.data()};
  for (int64_t k = 12; k-- > 0;) all(k);
  EXPECT_EQ(user, (std::vector<int32_t>{40, 40, 40, 7, 7, 7, 7, 7, 7, 12, 12, 12}));
  EXPECT_EQ(item, (std::vector<int32_t>{0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1, 2}));
}

}  // namespace
}  // namespace kt
