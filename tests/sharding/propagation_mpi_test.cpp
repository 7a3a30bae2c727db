#include <gmock/gmock.h>

#include <cmath>
#include <numeric>
#include <vector>

#include "launch/base/random.h"
#include "sharding/gather_shards.h"
#include "sharding/propagation.h"
#include "tests/support/mpi_test.h"

namespace kt {
namespace {

/// A graph on one process, by user: items ascending.
struct Graph {
  std::vector<int64_t> users_per_shard;  // [V]
  int64_t items = 0;
  std::vector<std::vector<int32_t>> items_of;  // [users]
  int64_t users() const { return std::ssize(items_of); }
};

/// Some shards without users, a user and an item without edges, an item that every other user has.
Graph drawn_graph() {
  Graph graph{.users_per_shard = {3, 0, 5, 2, 7, 1, 0, 4}, .items = 21, .items_of = {}};
  for (int32_t user = 0; user < 22; ++user) {
    std::vector<int32_t>& items = graph.items_of.emplace_back();
    for (int32_t item = 0; user != 9 && item < 20; ++item)
      if (item == 4 || random_bits(3, Purpose::kSynthetic, static_cast<uint64_t>(user),
                                   static_cast<uint64_t>(item)) %
                               4 ==
                           0)
        items.push_back(item);
  }
  return graph;
}

struct Rows {
  std::vector<float> users, items;
};

Rows drawn_rows(const Graph& graph, int64_t width, uint64_t seed) {
  uint64_t drawn = 0;
  const auto draw = [&](int64_t rows) {
    std::vector<float> values(rows * width);
    for (float& value : values)
      value = static_cast<float>(to_uniform(random_bits(seed, Purpose::kSynthetic, ++drawn)) - .5);
    return values;
  };
  Rows rows;
  rows.users = draw(graph.users());
  rows.items = draw(graph.items);
  return rows;
}

class PropagationOfRanks : public MpiTest {
 protected:
  PropagationOfRanks() : self(MPI_COMM_SELF) {}

  struct How {
    int64_t layers = 1, width = 1;
    int threads = 1;
    SimdLevel simd = SimdLevel::kAvx2;
  };

  /// The means of all rows, on every rank of `ranks`.
  static Rows means(const Graph& graph, const Rows& rows, const How& how, MpiCommunicator& ranks) {
    const auto shards = std::ssize(graph.users_per_shard);
    const Range own = shards_of_rank(shards, ranks.world());
    std::vector<int64_t> user_begin(shards + 1, 0);
    std::partial_sum(graph.users_per_shard.begin(), graph.users_per_shard.end(),
                     user_begin.begin() + 1);
    const std::vector<int64_t> item_begin = even_blocks(graph.items, shards);
    SparseRows edges;
    for (int64_t user = user_begin[own.begin]; user < user_begin[own.end]; ++user) {
      for (const int32_t item : graph.items_of[user]) edges.add(item, 1);
      edges.end_row();
    }
    ThreadPool pool(how.threads);
    Propagation propagation(edges,
                            {.users_per_shard = {graph.users_per_shard.begin() + own.begin,
                                                 graph.users_per_shard.begin() + own.end},
                             .item_begin = item_begin,
                             .width = how.width,
                             .layers = how.layers,
                             .simd = how.simd},
                            ranks, pool);
    const auto of = [&](const std::vector<float>& all, const std::vector<int64_t>& begin) {
      return std::vector<float>(all.begin() + begin[own.begin] * how.width,
                                all.begin() + begin[own.end] * how.width);
    };
    const Rows mine{of(rows.users, user_begin), of(rows.items, item_begin)};
    Rows found{std::vector<float>(mine.users.size(), 0), std::vector<float>(mine.items.size(), 0)};
    propagation.add_means(mine.users, mine.items, found.users, found.items);
    return {gather_blocks<float>(ranks, found.users, user_begin, how.width),
            gather_blocks<float>(ranks, found.items, item_begin, how.width)};
  }

  MpiCommunicator self;  // one process alone
};

/// The same by a matrix, users before items, in double.
std::vector<double> plain_means(const Graph& graph, const Rows& rows, int64_t layers,
                                int64_t width) {
  const int64_t users = graph.users(), n = users + graph.items;
  std::vector<double> matrix(n * n, 0), degree(n, 0);
  for (int64_t user = 0; user < users; ++user)
    for (const int32_t item : graph.items_of[user]) ++degree[user], ++degree[users + item];
  for (int64_t user = 0; user < users; ++user)
    for (const int32_t item : graph.items_of[user]) {
      const int64_t k = users + item;
      matrix[user * n + k] = matrix[k * n + user] = 1 / std::sqrt(degree[user] * degree[k]);
    }
  std::vector<double> layer(rows.users.begin(), rows.users.end());
  layer.insert(layer.end(), rows.items.begin(), rows.items.end());
  std::vector<double> sum = layer;
  for (int64_t l = 0; l < layers; ++l) {
    std::vector<double> next(n * width, 0);
    for (int64_t to = 0; to < n; ++to)
      for (int64_t from = 0; from < n; ++from)
        for (int64_t c = 0; c < width; ++c)
          next[to * width + c] += matrix[to * n + from] * layer[from * width + c];
    layer = next;
    for (int64_t k = 0; k < n * width; ++k) sum[k] += layer[k];
  }
  for (double& value : sum) value /= static_cast<double>(1 + layers);
  return sum;
}

std::vector<float> together(const Rows& rows) {
  std::vector<float> all = rows.users;
  all.insert(all.end(), rows.items.begin(), rows.items.end());
  return all;
}

TEST_F(PropagationOfRanks, SwapsAUserAndItsOnlyItem) {
  const Graph graph{{0, 1, 0, 0, 0, 0, 0, 0}, 1, {{0}}};
  const Rows one = means(graph, {{4}, {10}}, {.layers = 1}, comm);
  EXPECT_EQ(together(one), (std::vector<float>{7, 7}));  // (4 + 10) / 2
  const Rows two = means(graph, {{3}, {9}}, {.layers = 2}, comm);
  EXPECT_EQ(together(two), (std::vector<float>{5, 7}));  // (3 + 9 + 3) / 3, (9 + 3 + 9) / 3
}

TEST_F(PropagationOfRanks, DividesByTheRootOfBothDegrees) {
  const Graph graph{{0, 0, 1, 0, 0, 0, 0, 0}, 2, {{0, 1}}};
  const Rows found = means(graph, {{0}, {3, 5}}, {.layers = 1}, comm);
  EXPECT_NEAR(found.users[0], 8 / std::sqrt(2.) / 2, 1e-6);
  EXPECT_NEAR(found.items[1], 2.5, 1e-6);  // of a user of 0
}

TEST_F(PropagationOfRanks, IsThatOfTheMatrixAndKeepsTheRootsOfTheDegrees) {
  const Graph graph = drawn_graph();
  for (const int64_t width : {1, 7, 16, 40, 70}) {
    const Rows rows = drawn_rows(graph, width, 5);
    const std::vector<double> want = plain_means(graph, rows, 3, width);
    const std::vector<float> found =
        together(means(graph, rows, {.layers = 3, .width = width}, comm));
    for (size_t k = 0; k < want.size(); ++k) ASSERT_NEAR(found[k], want[k], 1e-6) << width;
  }
  Rows roots{std::vector<float>(graph.users(), 0), std::vector<float>(graph.items, 0)};
  for (int64_t user = 0; user < graph.users(); ++user)
    for (const int32_t item : graph.items_of[user]) ++roots.users[user], ++roots.items[item];
  for (std::vector<float>* degrees : {&roots.users, &roots.items})
    for (float& degree : *degrees) degree = std::sqrt(degree);
  EXPECT_THAT(together(means(graph, roots, {.layers = 4}, comm)),
              ::testing::Pointwise(::testing::FloatNear(1e-5f), together(roots)));
}

TEST_F(PropagationOfRanks, IsSymmetric) {
  const Graph graph = drawn_graph();
  const Rows x = drawn_rows(graph, 1, 6), y = drawn_rows(graph, 1, 7);
  const auto inner = [](const Rows& a, const Rows& b) {
    const std::vector<float> left = together(a), right = together(b);
    return std::inner_product(left.begin(), left.end(), right.begin(), 0.);
  };
  EXPECT_NEAR(inner(y, means(graph, x, {.layers = 3}, comm)),
              inner(means(graph, y, {.layers = 3}, comm), x), 1e-6);
}

TEST_F(PropagationOfRanks, HasTheSameBitsOnAnyRanksThreadsAndLanes) {
  const Graph graph = drawn_graph();
  const Rows rows = drawn_rows(graph, 40, 8);
  const Rows alone = means(graph, rows, {.layers = 3, .width = 40}, self);
  const Rows found =
      means(graph, rows, {.layers = 3, .width = 40, .threads = 2, .simd = best_simd_level()}, comm);
  EXPECT_EQ(together(found), together(alone));
}

}  // namespace
}  // namespace kt
