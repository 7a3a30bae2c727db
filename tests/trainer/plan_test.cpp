#include "trainer/plan.h"

#include <gmock/gmock.h>

#include <cmath>
#include <functional>

#include "launch/errors.h"

namespace kt {
namespace {

using ::testing::HasSubstr;

std::string user_error_of(const std::function<void()>& work) {
  try {
    work();
  } catch (const UserError& error) {
    return error.what();
  }
  return "no error";
}

const Collective& collective(const std::vector<Collective>& all, const std::string& what) {
  for (const Collective& c : all)
    if (c.what == what) return c;
  throw BugError("no collective of " + what);
}

constexpr int64_t kUsers = 61, kItems = 101, kCols = 4;

/// Two item tables, dense arrays whose rows V does not divide, shards of unequal rows and users.
PlanInputs small_inputs(int64_t shards, int64_t ranks) {
  PlanInputs inputs;
  inputs.config.train.global_batch = 50;
  for (int64_t j = 0; j < shards; ++j) {
    inputs.shard_rows.push_back(100 + 7 * (j % 5));
    inputs.shard_users.push_back(kUsers * (j + 1) / shards - kUsers * j / shards);
  }
  inputs.parameters = {{"user", ParameterKind::kUserTable, kUsers, kCols},
                       {"item", ParameterKind::kItemTable, kItems, kCols},
                       {"item.bias", ParameterKind::kItemTable, kItems, 1},
                       {"weight", ParameterKind::kDense, 13, 5},
                       {"bias", ParameterKind::kDense, 1, 5}};
  inputs.users = kUsers;
  inputs.items = kItems;
  inputs.features = 5;
  inputs.dropout_width = 5;
  inputs.test_pairs = 1000;
  inputs.ranks = ranks;
  inputs.device = {.name = "cpu",
                   .memory_bytes = int64_t{1} << 40,
                   .per_node = 64,
                   .link_bandwidth = 1e9,
                   .link_latency_s = 1e-6,
                   .network_bandwidth = 1e8,
                   .network_latency_s = 1e-5,
                   .message_overhead_s = 1e-7};
  return inputs;
}

// --- Against a plain count, element by element -----------------------------------------------------------

/// Who owns row `row` of `rows`: the block it falls in, and the rank that has the block.
int64_t owner(int64_t row, int64_t rows, int64_t shards, int64_t ranks) {
  int64_t block = 0;
  while (!(row >= rows * block / shards && row < rows * (block + 1) / shards)) ++block;
  int64_t rank = 0;
  while (!(block >= shards * rank / ranks && block < shards * (rank + 1) / ranks)) ++rank;
  return rank;
}

/// Subtrees of the tree over [first, first + size) that lie whole in [begin, end) and in none larger.
int64_t whole_subtrees(int64_t first, int64_t size, int64_t begin, int64_t end) {
  if (first >= begin && first + size <= end) return 1;
  if (size == 1 || first + size <= begin || first >= end) return 0;
  return whole_subtrees(first, size / 2, begin, end) +
         whole_subtrees(first + size / 2, size / 2, begin, end);
}

/// What goes round a ring, block by block.
std::vector<Traffic> ring(const std::vector<int64_t>& bytes) {
  const auto n = std::ssize(bytes);
  std::vector<Traffic> ranks(n);
  for (int64_t round = 0; round + 1 < n; ++round)
    for (int64_t r = 0; r < n; ++r) {
      const int64_t block = (r - round + n) % n;  // its own first, then what came the round before
      ++ranks[r].messages;
      ranks[r].sent_bytes += static_cast<double>(bytes[block]);
      ranks[(r + 1) % n].received_bytes += static_cast<double>(bytes[block]);
    }
  return ranks;
}

void expect_equal(const Collective& got, const std::vector<Traffic>& want) {
  ASSERT_EQ(got.ranks.size(), want.size());
  for (size_t r = 0; r < want.size(); ++r) {
    EXPECT_DOUBLE_EQ(got.ranks[r].messages, want[r].messages) << got.what << " of rank " << r;
    EXPECT_DOUBLE_EQ(got.ranks[r].sent_bytes, want[r].sent_bytes) << got.what << " of rank " << r;
    EXPECT_DOUBLE_EQ(got.ranks[r].received_bytes, want[r].received_bytes)
        << got.what << " of rank " << r;
  }
}

class CountedPlan : public ::testing::TestWithParam<std::tuple<int64_t, int64_t>> {};

INSTANTIATE_TEST_SUITE_P(Worlds, CountedPlan,
                         ::testing::Combine(::testing::Values(8, 64),
                                            ::testing::Values(1, 2, 3, 4, 8)),
                         [](const auto& test) {
                           return fmt::format("V{}Ranks{}", std::get<0>(test.param),
                                              std::get<1>(test.param));
                         });

TEST_P(CountedPlan, ExactCollectivesAreThoseOfAPlainCount) {
  const auto [shards, n] = GetParam();
  PlanInputs inputs = small_inputs(shards, n);
  inputs.config.train.clip_norm = 1;
  Requests requests(n, std::vector<double>(n));
  for (int64_t r = 0; r < n; ++r)
    for (int64_t s = 0; s < n; ++s) requests[r][s] = static_cast<double>((3 * r + 5 * s) % 4);
  const std::vector<Collective> got = step_collectives(inputs, requests);

  std::vector<std::string> order;
  for (const Collective& c : got) order.push_back(c.operation + " " + c.what);
  EXPECT_THAT(order, ::testing::ElementsAre(
                         "all_to_all item request counts", "all_to_all item ids",
                         "all_to_all item rows", "all_to_all item rows", "all_gather leaf losses",
                         "all_to_all dense subtrees", "all_to_all item gradients",
                         "all_to_all item gradients", "all_gather gradient norms",
                         "all_gather dense parameters", "all_reduce request to stop"));

  std::vector<int64_t> dense(n, 0), losses(n, 0), norms(n, 0), nodes(n, 0);
  for (int64_t row = 0; row < 13; ++row) dense[owner(row, 13, shards, n)] += 5 * 4;
  dense[owner(0, 1, shards, n)] += 5 * 4;
  for (int64_t j = 0; j < shards; ++j) {
    losses[owner(j, shards, shards, n)] += 8;
    norms[owner(j, shards, shards, n)] += 5 * 8;
  }
  for (int64_t r = 0; r < n; ++r)
    nodes[r] = whole_subtrees(0, shards, shards * r / n, shards * (r + 1) / n);

  const auto pairs = [&](const std::function<double(int64_t, int64_t)>& bytes) {
    std::vector<Traffic> ranks(n);
    for (int64_t r = 0; r < n; ++r)
      for (int64_t s = 0; s < n; ++s) {
        if (r == s || bytes(r, s) == 0) continue;
        ++ranks[r].messages;
        ranks[r].sent_bytes += bytes(r, s);
        ranks[s].received_bytes += bytes(r, s);
      }
    return ranks;
  };
  expect_equal(got[0], pairs([](int64_t, int64_t) { return 8; }));
  expect_equal(got[1], pairs([&](int64_t r, int64_t s) { return 4 * requests[r][s]; }));
  expect_equal(got[2], pairs([&](int64_t r, int64_t s) { return 4 * kCols * requests[s][r]; }));
  expect_equal(got[3], pairs([&](int64_t r, int64_t s) { return 4 * requests[s][r]; }));
  expect_equal(got[4], ring(losses));
  expect_equal(got[5], pairs([&](int64_t r, int64_t s) {
                 return static_cast<double>(nodes[r] * dense[s]);
               }));
  expect_equal(got[6], pairs([&](int64_t r, int64_t s) { return 4 * kCols * requests[r][s]; }));
  expect_equal(got[7], pairs([&](int64_t r, int64_t s) { return 4 * requests[r][s]; }));
  expect_equal(got[8], ring(norms));
  expect_equal(got[9], ring(dense));
}

TEST_P(CountedPlan, FastCollectivesReduceWholeArrays) {
  const auto [shards, n] = GetParam();
  PlanInputs inputs = small_inputs(shards, n);
  inputs.config.parallel.reduce = Reduce::kFast;
  inputs.parameters[1].rows = 1000;  // 16,000 bytes: round the ring
  const std::vector<Collective> got = step_collectives(inputs, {});
  ASSERT_EQ(got.size(), 5u);
  EXPECT_EQ(got[0].what, "loss");
  EXPECT_EQ(got[1].what, "dense gradients");
  EXPECT_EQ(got[4].what, "request to stop");
  double rounds = 0;
  for (int64_t reached = 1; reached < n; reached *= 2) ++rounds;
  for (const Traffic& t : got[0].ranks) {
    EXPECT_EQ(t.messages, rounds);
    EXPECT_EQ(t.sent_bytes, 8 * rounds);
  }
  for (const Traffic& t : got[1].ranks) EXPECT_EQ(t.received_bytes, 4 * (13 * 5 + 5) * rounds);
  for (const Traffic& t : got[2].ranks) {
    EXPECT_EQ(t.messages, 2 * (n - 1));
    EXPECT_DOUBLE_EQ(t.sent_bytes,
                     n == 1 ? 0 : 16000. * 2 * static_cast<double>(n - 1) / static_cast<double>(n));
    EXPECT_EQ(t.received_bytes, t.sent_bytes);
  }
}

TEST_P(CountedPlan, EveryRowAndEveryUserIsPlacedOnce) {
  const auto [shards, n] = GetParam();
  const PlanInputs inputs = small_inputs(shards, n);
  const Plan plan = make_plan(inputs);
  ASSERT_EQ(std::ssize(plan.ranks), n);
  int64_t rows = 0, users = 0, most = 0;
  std::vector<int64_t> next(inputs.parameters.size(), 0);
  double samples = 0;
  for (const RankPlan& rank : plan.ranks) {
    int64_t own = 0;
    for (int64_t j = rank.shards.begin; j < rank.shards.end; ++j) own += 100 + 7 * (j % 5);
    EXPECT_EQ(rank.rows, own);
    rows += own;
    users += rank.users;
    most = std::max(most, own);
    samples += rank.samples;
    for (size_t a = 0; a < inputs.parameters.size(); ++a) {
      EXPECT_EQ(rank.owned[a].begin, next[a]);
      next[a] = rank.owned[a].end;
    }
  }
  EXPECT_EQ(users, kUsers);
  for (size_t a = 0; a < inputs.parameters.size(); ++a)
    EXPECT_EQ(next[a], inputs.parameters[a].rows);
  const double training = .9 * static_cast<double>(rows);
  EXPECT_EQ(plan.steps, std::ceil(training / 50));
  EXPECT_NEAR(samples, training / static_cast<double>(plan.steps), 1e-9);
  EXPECT_DOUBLE_EQ(plan.speed_up_bound, static_cast<double>(rows) / static_cast<double>(most));
}

TEST_P(CountedPlan, ItemsAreAskedForWhereTheyAre) {
  const auto [shards, n] = GetParam();
  const PlanInputs inputs = small_inputs(shards, n);
  const std::vector<double> samples = samples_of_ranks(inputs);
  const Requests requests = expected_requests(inputs, samples);
  std::vector<int64_t> items(n, 0);
  for (int64_t item = 0; item < kItems; ++item) ++items[owner(item, kItems, shards, n)];
  for (int64_t r = 0; r < n; ++r)
    for (int64_t s = 0; s < n; ++s)
      EXPECT_NEAR(requests[r][s], samples[r] * static_cast<double>(items[s]) / kItems, 1e-9);
}

TEST_P(CountedPlan, MemoryOfParametersIsThatOfTheirElements) {
  const auto [shards, n] = GetParam();
  PlanInputs inputs = small_inputs(shards, n);
  for (const Reduce reduce : {Reduce::kExact, Reduce::kFast}) {
    inputs.config.parallel.reduce = reduce;
    const Plan plan = make_plan(inputs);
    for (int64_t r = 0; r < n; ++r) {
      int64_t held = 0;
      for (const ParameterSpec& spec : inputs.parameters) {
        int64_t begin = 0;
        for (int64_t row = 0; row < spec.rows; ++row) {
          bool mine = owner(row, spec.rows, shards, n) == r;
          if (spec.kind == ParameterKind::kUserTable) {
            int64_t shard = 0;
            for (begin = 0; row >= begin + inputs.shard_users[shard]; ++shard)
              begin += inputs.shard_users[shard];
            mine = owner(shard, shards, shards, n) == r;
          } else if (reduce == Reduce::kFast) {
            mine = true;
          }
          if (mine) held += spec.cols;
        }
      }
      const std::vector<MemoryUse>& memory = plan.ranks[r].memory;
      EXPECT_EQ(memory[3].what, "parameters");
      EXPECT_EQ(memory[3].bytes, 4 * (held + 13 * 5 + 5));
      EXPECT_EQ(memory[4].bytes, 4 * held);
      EXPECT_EQ(memory[5].bytes, 8 * held);
      EXPECT_EQ(memory[1].bytes, 16 * plan.ranks[r].rows + 4 * plan.ranks[r].users);
    }
  }
}

// --- What fits -------------------------------------------------------------------------------------------

TEST(PlanMemory, PeakIsWhatIsAlwaysThereAndTheLargestOfTheRest) {
  using enum MemoryPhase;
  EXPECT_EQ(peak_bytes({{"a", kAlways, 5}, {"b", kStep, 3}, {"c", kStep, 4}, {"d", kLoading, 6}}),
            12);
  EXPECT_EQ(peak_bytes({{"a", kAlways, 5}, {"d", kEvaluation, 6}, {"b", kAlways, 1}}), 12);
}

TEST(PlanMemory, SaysTheFewestRanksThatFit) {
  PlanInputs inputs = small_inputs(64, 2);
  inputs.device.gpu = true;
  inputs.device.per_node = 2;
  inputs.device.fp32 = inputs.device.memory_bandwidth = 1e12;
  for (int64_t& rows : inputs.shard_rows) rows *= 1'000'000;
  EXPECT_TRUE(make_plan(inputs).fits);

  inputs.device.memory_bytes = 20'000'000'000;
  const Plan plan = make_plan(inputs);
  EXPECT_FALSE(plan.fits);
  EXPECT_GT(plan.memory_bytes, inputs.device.memory_bytes);
  ASSERT_GT(plan.ranks_needed, 2);
  PlanInputs other = inputs;
  other.ranks = plan.ranks_needed;
  other.nodes = (other.ranks + 1) / 2;
  EXPECT_TRUE(make_plan(other).fits);
  --other.ranks;
  other.nodes = (other.ranks + 1) / 2;
  EXPECT_FALSE(make_plan(other).fits);

  inputs.device.memory_bytes = 1'000'000'000;  // less than a process needs before any data
  EXPECT_EQ(make_plan(inputs).ranks_needed, 0);
}

TEST(PlanMemory, RanksOfANodeShareItsMemory) {
  PlanInputs inputs = small_inputs(64, 4);
  const int64_t together = make_plan(inputs).memory_bytes;
  inputs.nodes = 4;
  const int64_t apart = make_plan(inputs).memory_bytes;
  EXPECT_GT(together, 3 * apart);
  EXPECT_LT(together, 5 * apart);
}

// --- Time ------------------------------------------------------------------------------------------------

TEST(PlanTime, OneRankCommunicatesWithNobody) {
  for (const Reduce reduce : {Reduce::kExact, Reduce::kFast}) {
    PlanInputs inputs = small_inputs(8, 1);
    inputs.config.parallel.reduce = reduce;
    inputs.config.train.clip_norm = 1;
    const Plan plan = make_plan(inputs);
    EXPECT_EQ(plan.communication_seconds, 0);
    for (const Collective& c : plan.collectives) {
      EXPECT_EQ(c.ranks[0].messages, 0) << c.what;
      EXPECT_EQ(c.ranks[0].sent_bytes + c.ranks[0].received_bytes, 0) << c.what;
    }
    EXPECT_GT(plan.step_seconds(), 0);
  }
}

TEST(PlanTime, ACollectiveCostsLatencyAndBytes) {
  const PlanInputs inputs = small_inputs(8, 2);
  const std::vector<Collective> all = step_collectives(inputs, {{0, 1000}, {500, 0}});
  // 1,000 ids out, 500 in, 4 bytes each at 1 GB/s, after one latency.
  EXPECT_NEAR(collective(all, "item ids").seconds, 1e-6 + 4000e-9, 1e-12);
  // Eight losses of 8 bytes, half of them sent.
  EXPECT_NEAR(collective(all, "leaf losses").seconds, 1e-6 + 32e-9, 1e-12);
}

TEST(PlanTime, BetweenNodesTheNetworkIsSharedByTheRanksOfANode) {
  PlanInputs inputs = small_inputs(8, 4);
  inputs.nodes = 2;
  Requests requests(4, std::vector<double>(4, 100));
  const Collective ids = collective(step_collectives(inputs, requests), "item ids");
  EXPECT_EQ(ids.ranks[0].messages, 3);
  EXPECT_EQ(ids.ranks[0].remote_messages, 2);
  EXPECT_EQ(ids.ranks[0].remote_sent_bytes, 800);
  EXPECT_EQ(ids.ranks[3].remote_received_bytes, 800);
  EXPECT_NEAR(ids.seconds, 1e-5 + 2 * 1e-7 + 400 / 1e9 + 800 / (1e8 / 2), 1e-12);
  const Collective losses = collective(step_collectives(inputs, requests), "leaf losses");
  EXPECT_EQ(losses.ranks[0].remote_messages, 0);  // its neighbour on the ring is on its node
  EXPECT_EQ(losses.ranks[1].remote_messages, 3);
}

TEST(PlanTime, ThreadsShareOutWholeLeaves) {
  PlanInputs inputs = small_inputs(8, 2);
  const double one = make_plan(inputs).ranks[0].busy_seconds[0];
  inputs.config.parallel.threads = 2;
  EXPECT_NEAR(make_plan(inputs).ranks[0].busy_seconds[0], one / 2, 1e-12);
  inputs.config.parallel.threads = 3;  // four leaves: two rounds
  EXPECT_NEAR(make_plan(inputs).ranks[0].busy_seconds[0], one / 2, 1e-12);
  inputs.config.parallel.threads = 9;
  EXPECT_NEAR(make_plan(inputs).ranks[0].busy_seconds[0], one / 4, 1e-12);
}

TEST(PlanTime, MoreThreadsThanCoresStretchTheStep) {
  PlanInputs inputs = small_inputs(8, 4);
  const Plan plan = make_plan(inputs);
  EXPECT_EQ(plan.oversubscription, 1);
  inputs.device.per_node = 2;
  const Plan crowded = make_plan(inputs);
  EXPECT_EQ(crowded.oversubscription, 2);
  EXPECT_NEAR(crowded.compute_seconds, 2 * plan.compute_seconds, 1e-12);
}

TEST(PlanTime, AGpuStepTakesItsLongestPart) {
  PlanInputs inputs = small_inputs(64, 4);
  inputs.device = find_device("a100");
  const Plan plan = make_plan(inputs);
  for (const RankPlan& rank : plan.ranks)
    EXPECT_EQ(rank.compute_seconds,
              *std::max_element(rank.busy_seconds.begin(), rank.busy_seconds.end()));
  EXPECT_EQ(plan.busy_parts.size(), plan.ranks[0].busy_seconds.size());
}

TEST(PlanTime, ADominantShardBoundsTheSpeedUp) {
  PlanInputs inputs = small_inputs(8, 8);
  inputs.shard_rows = {0, 0, 900, 20, 20, 20, 20, 20};
  const Plan plan = make_plan(inputs);
  EXPECT_EQ(plan.largest_shard, 2);
  EXPECT_DOUBLE_EQ(plan.largest_share, .9);
  EXPECT_DOUBLE_EQ(plan.speed_up_bound, 1 / .9);
  EXPECT_EQ(plan.ranks[0].rows, 0);
  EXPECT_EQ(plan.ranks[0].samples, 0);
}

TEST(PlanFlops, AreSixPerWeightAndRow) {
  PlanInputs inputs = small_inputs(8, 2);
  inputs.config.train.optimizer.name = OptimizerName::kSgd;
  const Plan plan = make_plan(inputs);
  const double a_row = 6 * 13 * 5 + 2 * 5 + (kCols + kCols + 1);
  const double update = 5. * (kUsers * kCols + kItems * (kCols + 1) + 13 * 5 + 5);
  EXPECT_NEAR(
      plan.flops,
      a_row * static_cast<double>(plan.training_rows) / static_cast<double>(plan.steps) + update,
      a_row);  // training_rows is rounded
}

// --- Refused ---------------------------------------------------------------------------------------------

TEST(PlanErrors, MoreRanksThanShards) {
  EXPECT_THAT(user_error_of([] { make_plan(small_inputs(8, 9)); }),
              HasSubstr("9 ranks, but the data set has 8 shards"));
}

TEST(PlanErrors, MoreNodesThanRanks) {
  PlanInputs inputs = small_inputs(8, 2);
  inputs.nodes = 3;
  EXPECT_EQ(user_error_of([&] { make_plan(inputs); }),
            "--nodes 3: there are 2 ranks, expected at most one node a rank; give more --ranks");
}

TEST(PlanErrors, MoreRanksThanDevicesOnANode) {
  PlanInputs inputs = small_inputs(64, 18);
  inputs.device = find_device("h100");
  inputs.nodes = 2;
  EXPECT_EQ(user_error_of([&] { make_plan(inputs); }),
            "--nodes 2: 9 ranks a node, but a node has 8 devices; give at least --nodes 3");
}

TEST(PlanErrors, NoTrainingRows) {
  PlanInputs inputs = small_inputs(8, 2);
  std::fill(inputs.shard_rows.begin(), inputs.shard_rows.end(), 0);
  EXPECT_THAT(user_error_of([&] { make_plan(inputs); }), HasSubstr("no training rows are left"));
}

TEST(DeviceCatalogue, RefusesAnUnknownNameWithTheKnownOnes) {
  EXPECT_EQ(user_error_of([] { find_device("abacus"); }),
            "--device abacus: no such device, expected cpu, a100, a100-40gb, h100, h200, b200, l4, "
            "l40s");
}

TEST(DeviceCatalogue, EveryDeviceHasItsFiguresAndTheirSource) {
  for (const std::string& name : device_names()) {
    const Device device = find_device(name);
    EXPECT_EQ(device.name, name);
    EXPECT_GT(device.memory_bytes, 100'000'000) << name;
    EXPECT_GE(device.per_node, 1) << name;
    EXPECT_GT(device.link_bandwidth, 1e9) << name;
    EXPECT_GT(device.network_latency_s, device.link_latency_s) << name;
    EXPECT_GT(device.network_bandwidth, 1e9) << name;
    EXPECT_GT(device.message_overhead_s, 0) << name;
    EXPECT_FALSE(device.source.empty()) << name;
    EXPECT_EQ(device.gpu, name != "cpu");
    if (!device.gpu) continue;
    EXPECT_GT(device.fp32, 1e13) << name;
    EXPECT_GT(device.tf32, device.fp32) << name;
    EXPECT_NEAR(device.bf16 / device.tf32, 2, .1) << name;
    EXPECT_GT(device.memory_bandwidth, 1e11) << name;
    EXPECT_THAT(device.source, HasSubstr("NVIDIA"));
  }
}

}  // namespace
}  // namespace kt
