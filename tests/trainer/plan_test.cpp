#include "trainer/planning/plan.h"

#include <gmock/gmock.h>

#include <cmath>
#include <functional>
#include <map>
#include <numeric>

#include "launch/base/errors.h"
#include "models/systems/registry.h"

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

constexpr int64_t kUsers = 61, kItems = 101, kCols = 4, kItemPart = 32;

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
  inputs.columns = {0, 5, 0};
  inputs.dropout_width = 5;
  inputs.config.model.engine = EngineName::kFused;
  inputs.config.model.form = FormName::kRows;
  inputs.user_part = 16;
  inputs.item_part = kItemPart;
  inputs.workspace = 1000;
  inputs.arithmetic = {.user = {.forward = 10, .backward = 12, .gradients = 8},
                       .item = {.forward = 30, .backward = 20, .gradients = 20},
                       .row = {.forward = 200, .backward = 140, .gradients = 160}};
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

/// A system of means over the same rows.
PlanInputs small_means(const char* name, int64_t shards, int64_t ranks) {
  PlanInputs inputs = small_inputs(shards, ranks);
  const System system = make_default_system(name, {.users = kUsers, .items = kItems});
  inputs.means = system.means;
  inputs.parameters = system.graph.parameters();
  inputs.columns = {};
  return inputs;
}

double bytes_of(const std::vector<MemoryUse>& memory, const std::string& what) {
  for (const MemoryUse& use : memory)
    if (use.what == what) return static_cast<double>(use.bytes);
  throw BugError("no memory of " + what);
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

std::vector<std::string> names_of(const std::vector<Collective>& collectives) {
  std::vector<std::string> names;
  for (const Collective& c : collectives) names.push_back(c.operation + " " + c.what);
  return names;
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
  inputs.nodes = n;
  StepItems requests(n);
  for (int64_t r = 0; r < n; ++r)
    for (int64_t s = 0; s < n; ++s) {
      requests.rows[r][s] = static_cast<double>((3 * r + 5 * s) % 4);
      requests.next_rows[r][s] = static_cast<double>((r + 2 * s) % 5);
      requests.parts[r][s] = static_cast<double>((r + 5 * s) % 3);
    }
  const std::vector<Collective> got = step_collectives(inputs, requests);
  std::vector<std::string> names;  // one rank tells itself nothing
  if (n > 1)
    names = {"all_to_all item parts", "all_to_all item gradients", "all_gather dense gradients"};
  EXPECT_EQ(names_of(got), names);
  // A device has an answer for each row, and asks nothing every step; through libtorch whole rows of each table.
  inputs.device.gpu = true;
  const std::vector<Collective> of_parts = step_collectives(inputs, requests);
  std::vector<std::string> part_names{"all_to_all item ids",        "all_to_all item parts",
                                      "all_to_all item gradients",  "all_to_all dense subtrees",
                                      "all_gather leaf losses",     "all_gather gradient norms",
                                      "all_gather dense parameters"};
  if (n == 1) part_names.erase(part_names.begin(), part_names.begin() + 3);
  EXPECT_EQ(names_of(of_parts), part_names);
  inputs.config.model.engine = EngineName::kTorch;
  const std::vector<Collective> on_devices = step_collectives(inputs, requests);
  EXPECT_THAT(
      names_of(on_devices),
      ::testing::ElementsAre("all_to_all item ids", "all_to_all item rows", "all_to_all item rows",
                             "all_to_all dense subtrees", "all_to_all item gradients",
                             "all_to_all item gradients", "all_gather leaf losses",
                             "all_gather gradient norms", "all_gather dense parameters"));

  std::vector<int64_t> dense(n, 0), numbers(n, 0), nodes(n, 0), told(n, 0);
  for (int64_t row = 0; row < 13; ++row) dense[owner(row, 13, shards, n)] += 5 * 4;
  dense[owner(0, 1, shards, n)] += 5 * 4;
  for (int64_t j = 0; j < shards; ++j) numbers[owner(j, shards, shards, n)] += 8;
  for (int64_t r = 0; r < n; ++r) {
    nodes[r] = whole_subtrees(0, shards, shards * r / n, shards * (r + 1) / n);
    // A loss and the norms of three tables a shard; the request; 13 rows and one of 5, an even number.
    told[r] = 4 * numbers[r] + 8 + 4 * 70 * nodes[r];
  }

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
  const auto ids = pairs([&](int64_t r, int64_t s) { return 4 * requests.rows[r][s]; });
  const auto subtrees =
      pairs([&](int64_t r, int64_t s) { return static_cast<double>(nodes[r] * dense[s]); });
  if (n > 1) {
    expect_equal(got[0], pairs([&](int64_t r, int64_t s) {
                   return 8 + 4 * kItemPart * requests.parts[s][r];
                 }));
    expect_equal(got[1], pairs([&](int64_t r, int64_t s) {
                   return 4 * kItemPart * requests.rows[r][s] + 4 * requests.next_rows[r][s];
                 }));
    expect_equal(got[2], ring(told));
  }

  if (n > 1) {
    expect_equal(of_parts[0], ids);
    expect_equal(of_parts[1],
                 pairs([&](int64_t r, int64_t s) { return 4 * kItemPart * requests.rows[s][r]; }));
    expect_equal(of_parts[2],
                 pairs([&](int64_t r, int64_t s) { return 4 * kItemPart * requests.rows[r][s]; }));
  }
  expect_equal(of_parts[n > 1 ? 3 : 0], subtrees);
  expect_equal(on_devices[0], ids);
  expect_equal(on_devices[1],
               pairs([&](int64_t r, int64_t s) { return 4 * kCols * requests.rows[s][r]; }));
  expect_equal(on_devices[2], pairs([&](int64_t r, int64_t s) { return 4 * requests.rows[s][r]; }));
  expect_equal(on_devices[3], subtrees);
  expect_equal(on_devices[4],
               pairs([&](int64_t r, int64_t s) { return 4 * kCols * requests.rows[r][s]; }));
  expect_equal(on_devices[5], ids);
  expect_equal(on_devices[6], ring(numbers));
  expect_equal(on_devices[7], ring(numbers));
  expect_equal(on_devices[8], ring(dense));
}

TEST_P(CountedPlan, FastCollectivesReduceWholeArrays) {
  const auto [shards, n] = GetParam();
  PlanInputs inputs = small_inputs(shards, n);
  inputs.config.parallel.reduce = Reduce::kFast;
  inputs.parameters[1].rows = 1000;  // 16,000 bytes: round the ring
  const std::vector<Collective> got = step_collectives(inputs, StepItems(n));
  EXPECT_THAT(names_of(got), ::testing::ElementsAre(
                                 "all_reduce dense gradients", "all_reduce item gradients",
                                 "all_reduce item gradients", "all_reduce loss, norm, requests"));
  inputs.device.gpu = true;
  EXPECT_THAT(names_of(step_collectives(inputs, StepItems(n))),
              ::testing::ElementsAre("all_reduce dense gradients", "all_reduce loss",
                                     "all_reduce item gradients", "all_reduce item gradients",
                                     "all_gather gradient norms"));
  inputs.config.model.engine = EngineName::kTorch;
  EXPECT_THAT(names_of(step_collectives(inputs, StepItems(n))),
              ::testing::ElementsAre("all_reduce loss", "all_reduce dense gradients",
                                     "all_reduce item gradients", "all_reduce item gradients",
                                     "all_gather gradient norms"));
  double rounds = 0;
  for (int64_t reached = 1; reached < n; reached *= 2) ++rounds;
  for (const Traffic& t : got[3].ranks) {
    EXPECT_EQ(t.messages, rounds);
    EXPECT_EQ(t.sent_bytes, 40 * rounds);
  }
  for (const Traffic& t : got[0].ranks) EXPECT_EQ(t.received_bytes, 4 * (13 * 5 + 5) * rounds);
  for (const Traffic& t : got[1].ranks) {
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
  PlanInputs inputs = small_inputs(shards, n);
  const std::vector<double> samples = samples_of_ranks(inputs);
  // The chance of each item to come, item by item: expectations add up.
  const auto comes = [](double draws) { return 1 - std::pow(1 - 1. / kItems, draws); };
  double all = 0;
  for (const double of_rank : samples) all += of_rank;
  const StepItems requests = expected_requests(inputs, samples);
  std::vector<int64_t> items(n, 0);
  for (int64_t item = 0; item < kItems; ++item) ++items[owner(item, kItems, shards, n)];
  for (int64_t s = 0; s < n; ++s) {
    const auto own = static_cast<double>(items[s]);
    for (int64_t r = 0; r < n; ++r) {
      EXPECT_NEAR(requests.rows[r][s], samples[r] * own / kItems, 1e-9);
      EXPECT_NEAR(requests.parts[r][s], own * comes(samples[r]), 1e-9);
    }
    EXPECT_NEAR(requests.computed[s], own * comes(all), 1e-9);
  }

  inputs.config.parallel.reduce = Reduce::kFast;
  const StepItems fast = expected_requests(inputs, samples);
  for (int64_t s = 0; s < n; ++s) {
    for (int64_t r = 0; r < n; ++r) {
      EXPECT_NEAR(fast.rows[r][s], r == s ? samples[r] : 0, 1e-9);
      EXPECT_NEAR(fast.parts[r][s], r == s ? kItems * comes(samples[r]) : 0, 1e-9);
    }
    EXPECT_NEAR(fast.computed[s], kItems * comes(samples[s]), 1e-9);
  }
}

TEST_P(CountedPlan, ASampleOfAGroupMakesAllItsRows) {
  const auto [shards, n] = GetParam();
  PlanInputs inputs = small_inputs(shards, n);
  const std::vector<double> alone = samples_of_ranks(inputs);
  const Plan before = make_plan(inputs);
  inputs.group = 5;
  const std::vector<double> rows = samples_of_ranks(inputs);
  for (int64_t r = 0; r < n; ++r) EXPECT_DOUBLE_EQ(rows[r], 5 * alone[r]);
  const Plan plan = make_plan(inputs);
  EXPECT_EQ(plan.steps, before.steps);
  EXPECT_GT(bytes_of(plan.ranks[0].memory, "samples, item parts, exchange"),
            bytes_of(before.ranks[0].memory, "samples, item parts, exchange"));
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
          } else if (reduce == Reduce::kFast || spec.kind == ParameterKind::kDense) {
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

TEST_P(CountedPlan, RowsOfMeansGoToTheOwnersOfTheirVideos) {
  const auto [shards, n] = GetParam();
  PlanInputs inputs = small_means("additive_means", shards, n);
  std::vector<double> samples(n, 0), items(n, 0), users(n, 0), own_shards(n, 0);
  for (int64_t j = 0; j < shards; ++j) {
    const int64_t rank = owner(j, shards, shards, n);
    samples[rank] += .9 * static_cast<double>(inputs.shard_rows[j]);
    users[rank] += static_cast<double>(inputs.shard_users[j]);
    ++own_shards[rank];
  }
  for (int64_t item = 0; item < kItems; ++item) ++items[owner(item, kItems, shards, n)];
  const double all = std::accumulate(samples.begin(), samples.end(), 0.);

  for (const Reduce reduce : {Reduce::kExact, Reduce::kFast}) {
    inputs.config.parallel.reduce = reduce;
    const Plan plan = make_plan(inputs);
    EXPECT_EQ(plan.steps, 1);
    const Collective rows = collective(plan.collectives, "users of rows");
    for (int64_t r = 0; r < n; ++r) {
      EXPECT_NEAR(plan.ranks[r].samples, samples[r], 1e-9);
      EXPECT_NEAR(rows.ranks[r].sent_bytes, 4 * samples[r] * (1 - items[r] / kItems), 1e-6);
      EXPECT_NEAR(rows.ranks[r].received_bytes, 4 * (all - samples[r]) * items[r] / kItems, 1e-6);
      const std::vector<MemoryUse>& memory = plan.ranks[r].memory;
      const double brought = all * items[r] / kItems;
      EXPECT_NEAR(bytes_of(memory, "rows by video, 12 B a row"), 12 * brought + 8 * items[r], 1);
      EXPECT_NEAR(bytes_of(memory, "rows to their videos"),
                  32 * samples[r] + 24 * brought + 4 * kItems, 1);
      EXPECT_EQ(bytes_of(memory, "means of all users and videos"),
                8 * (users[r] + kItems + kUsers + items[r]));
    }
    // Of both in turn: five sweeps after the videos' first.
    const Collective means = collective(plan.collectives, "video means");
    EXPECT_EQ(means.times, 6);
    for (int64_t r = 0; r < n; ++r)
      EXPECT_EQ(means.ranks[r].received_bytes, 8 * (kItems - items[r]));
  }
}

TEST(PlannedMeans, CommunicateWhatTheyAreOf) {
  const auto names = [](const char* system) {
    std::vector<std::string> all;
    for (const Collective& c : make_plan(small_means(system, 8, 2)).collectives)
      all.push_back(fmt::format("{} {}", c.times, c.what));
    return all;
  };
  const std::vector<std::string> of_all = {"1 moments of shards", "1 sums of shards",
                                           "1 request to stop"};
  EXPECT_EQ(names("global_mean"), of_all);
  EXPECT_EQ(names("user_mean"), of_all);  // a user's rows are on one rank
  const std::vector<std::string> popularity = names("popularity");
  EXPECT_EQ(popularity.size(), 13U);
  EXPECT_EQ(popularity.front(), "1 sizes");  // it counts from 0, not from the mean
  EXPECT_THAT(popularity, ::testing::Contains("1 video means"));
  EXPECT_THAT(names("additive_means"), ::testing::Contains("6 user means"));
}

TEST(PlannedMeans, TakeAPassForEachSweep) {
  PlanInputs inputs = small_means("additive_means", 8, 2);
  const auto parts = [&](int64_t sweeps, int64_t threads) {
    inputs.means->sweeps = sweeps;
    inputs.config.parallel.threads = threads;
    return make_plan(inputs).ranks[0].busy_seconds;
  };
  const std::vector<double> one = parts(1, 1), three = parts(3, 1), shared = parts(3, 2);
  EXPECT_NEAR(three[0], one[0] * 5 / 3, 1e-12);  // mean and errors too
  EXPECT_EQ(three[1], one[1]);
  EXPECT_NEAR(three[2], one[2] * 2, 1e-12);  // once before the first sweep
  EXPECT_NEAR(shared[0], three[0] / 2, 1e-12);
  EXPECT_EQ(shared[1], three[1]);  // the exchange is one thread's
  EXPECT_NEAR(shared[2], three[2] / 2, 1e-12);
  EXPECT_EQ(make_plan(small_means("user_mean", 8, 2)).busy_parts.size(), 1U);
  EXPECT_EQ(make_plan(inputs).flops, 0);
}

// --- What fits -------------------------------------------------------------------------------------------

TEST(PlanMemory, PeakIsWhatIsAlwaysThereAndTheLargestOfTheRest) {
  using enum MemoryPhase;
  EXPECT_EQ(peak_bytes({{"a", kAlways, 5}, {"b", kStep, 3}, {"c", kStep, 4}, {"d", kLoading, 6}}),
            12);
  EXPECT_EQ(peak_bytes({{"a", kAlways, 5}, {"d", kEvaluation, 6}, {"b", kAlways, 1}}), 12);
  EXPECT_EQ(peak_bytes({{"a", kStep, 5}, {"d", kStepAlone, 6}, {"b", kCheckpoint, 7}}), 12);
  EXPECT_EQ(peak_bytes({{"a", kTraining, 5}, {"d", kLoading, 6}, {"b", kStep, 2}}), 11);
  EXPECT_EQ(peak_bytes({{"a", kTraining, 5}, {"d", kValidation, 6}, {"b", kEvaluation, 7}}), 11);
  EXPECT_EQ(peak_bytes({{"a", kTraining, 5}, {"d", kAlways, 6}, {"b", kEvaluation, 7}}), 13);
}

TEST(PlanMemory, SaysTheFewestRanksThatFit) {
  PlanInputs inputs = small_inputs(64, 2);
  inputs.device.gpu = true;
  inputs.device.per_node = 2;
  inputs.device.fp32 = inputs.device.memory_bandwidth = 1e12;
  inputs.config.model.engine = EngineName::kTorch;
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
  StepItems requests(2);
  requests.next_rows = {{0, 1000}, {500, 0}};
  const std::vector<Collective> all = step_collectives(inputs, requests);
  // 1,000 items of one rank, 500 of the other, read in place: 4 bytes each at 1 GB/s, after one latency.
  const Collective& items = collective(all, "item gradients");
  EXPECT_EQ(items.operation, "meet");
  EXPECT_EQ(items.ranks[0].read_bytes, 2000);
  EXPECT_EQ(items.ranks[1].read_bytes, 4000);
  EXPECT_NEAR(items.seconds, 1e-6 + 4000e-9, 1e-12);
  // A subtree of 70 floats; four shards' losses and norms of three tables; a request.
  EXPECT_NEAR(collective(all, "dense gradients").seconds, 1e-6 + (4 * 70 + 8 * 17) * 1e-9, 1e-12);
}

TEST(PlanTime, BetweenNodesTheNetworkIsSharedByTheRanksOfANode) {
  PlanInputs inputs = small_inputs(8, 4);
  inputs.nodes = 2;
  StepItems requests(4);
  for (std::vector<double>& of_rank : requests.next_rows) of_rank.assign(4, 100);
  const std::vector<Collective> all = step_collectives(inputs, requests);
  const Collective items = collective(all, "item gradients");
  EXPECT_EQ(items.ranks[0].messages, 2);
  EXPECT_EQ(items.ranks[0].remote_messages, 2);
  EXPECT_EQ(items.ranks[0].remote_sent_bytes, 800);
  EXPECT_EQ(items.ranks[3].remote_received_bytes, 800);
  EXPECT_NEAR(items.seconds, 1e-5 + 1e-7 + 800 / (1e8 / 2), 1e-12);
  EXPECT_EQ(items.rounds, 1);
  // The other rank of the node: 100 ids where they lie.
  const auto read = std::ranges::find_if(
      all, [&](const Collective& c) { return c.operation == "meet" && c.what == items.what; });
  ASSERT_NE(read, all.end());
  EXPECT_EQ(read->ranks[0].messages, 0);
  EXPECT_EQ(read->rounds, 1);
  EXPECT_EQ(read->ranks[0].read_bytes, 400);
  EXPECT_NEAR(read->seconds, 1e-6 + 400 / 1e9, 1e-12);
  const Collective told = collective(all, "dense gradients");
  EXPECT_EQ(told.ranks[0].remote_messages, 0);  // its neighbour on the ring is on its node
  EXPECT_EQ(told.ranks[1].remote_messages, 3);
}

TEST(PlanScaling, EndsWhereCommunicationReachesComputing) {
  PlanInputs inputs = small_inputs(64, 4);
  inputs.nodes = 2;
  const std::vector<ScalingPoint> points = scaling_of(inputs);
  ASSERT_EQ(points.size(), 7u);
  for (size_t k = 0; k < points.size(); ++k) {
    const ScalingPoint& point = points[k];
    EXPECT_EQ(point.ranks, 1 << k);
    EXPECT_EQ(point.nodes, std::max(1, (1 << k) / 2));
    PlanInputs same = inputs;
    same.ranks = point.ranks, same.nodes = point.nodes;
    const Plan plan = make_plan(same);
    EXPECT_EQ(point.step_seconds(), plan.step_seconds());
    EXPECT_GT(point.compute_seconds, 0);  // with shards that have no user too
    EXPECT_EQ(point.waits, plan.waits);
    EXPECT_EQ(point.rounds, plan.rounds);
    EXPECT_LE(point.waiting_seconds, point.communication_seconds);
  }
  EXPECT_EQ(points[0].waits + points[0].rounds, 0);
  EXPECT_EQ(points[0].incoming_bytes, 0);
  EXPECT_FALSE(points[0].ends_scaling());
  // A few rows a step of 64 ranks are waiting; over a link that bytes cost nothing on, rows enough hide it.
  EXPECT_TRUE(points.back().ends_scaling());
  inputs.device.link_bandwidth = inputs.device.network_bandwidth = 1e18;
  inputs.config.train.global_batch = int64_t{1} << 40;
  for (int64_t& rows : inputs.shard_rows) rows *= 1'000'000'000;
  for (const ScalingPoint& point : scaling_of(inputs))
    EXPECT_FALSE(point.ends_scaling()) << point.ranks << " ranks: " << point.longest << ", "
                                       << point.longest_seconds << " s of " << point.step_seconds();
}

TEST(PlanTime, ThreadsShareOutWholeLeaves) {
  for (const EngineName engine : {EngineName::kFused, EngineName::kTorch}) {
    PlanInputs inputs = small_inputs(8, 2);
    inputs.config.model.engine = engine;
    const double one = make_plan(inputs).ranks[0].busy_seconds[0];
    const auto with_threads = [&](int64_t threads) {
      inputs.config.parallel.threads = threads;
      return make_plan(inputs).ranks[0].busy_seconds[0];
    };
    EXPECT_NEAR(with_threads(2), one / 2, 1e-12);
    EXPECT_NEAR(with_threads(3), one / 2, 1e-12);  // four leaves: two rounds
    EXPECT_NEAR(with_threads(9), one / 4, 1e-12);
  }
}

TEST(PlanTime, WhatIsComputedOnceAnIdCostsOnceAnId) {
  // The same arithmetic, moved from rows to ids: a large step has far fewer of these.
  PlanInputs rows = small_inputs(8, 2), ids = rows;
  rows.config.train.global_batch = ids.config.train.global_batch = 700;
  rows.arithmetic = {.row = {.forward = 10000}};
  ids.arithmetic = {.user = {.forward = 4000}, .item = {.forward = 5000}, .row = {.forward = 1000}};
  EXPECT_LT(make_plan(ids).flops, .5 * make_plan(rows).flops);
  EXPECT_LT(make_plan(ids).compute_seconds, .7 * make_plan(rows).compute_seconds);
  rows.config.train.global_batch = ids.config.train.global_batch = 1;
  EXPECT_GT(make_plan(ids).flops, .95 * make_plan(rows).flops);
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

TEST(PlanTime, AGpuStepThroughLibtorchTakesItsLongestPart) {
  PlanInputs inputs = small_inputs(64, 4);
  inputs.config.model.engine = EngineName::kTorch;
  inputs.device = find_device("a100");
  const Plan plan = make_plan(inputs);
  for (const RankPlan& rank : plan.ranks)
    EXPECT_EQ(rank.compute_seconds,
              *std::max_element(rank.busy_seconds.begin(), rank.busy_seconds.end()));
  EXPECT_EQ(plan.busy_parts.size(), plan.ranks[0].busy_seconds.size());
}

/// `ncf` for ids on one H200, with the counts of KuaiRec and of a batch.
PlanInputs ncf_on_a_device(int64_t batch) {
  PlanInputs inputs;
  inputs.config.train.global_batch = batch;
  inputs.config.data.validation.fraction = 0;
  inputs.config.model.engine = EngineName::kFused;
  inputs.config.model.form = FormName::kIds;
  inputs.users = 7176;
  inputs.items = 10728;
  for (int64_t j = 0; j < 64; ++j) {
    inputs.shard_users.push_back(inputs.users * (j + 1) / 64 - inputs.users * j / 64);
    inputs.shard_rows.push_back(batch * 160 / 64);
  }
  inputs.columns = {0, 15, 0};
  const Layers ncf =
      make_default_system("ncf", {.users = 7176, .items = 10728, .columns = {0, 15, 0}}).graph;
  inputs.parameters = ncf.parameters();
  inputs.arithmetic = fused::arithmetic_of({ncf, Form::kIds});
  inputs.user_part = inputs.item_part = 32;
  inputs.device = find_device("h200");
  return inputs;
}

const DeviceKernel& kernel(const Plan& plan, const std::string& name) {
  for (const DeviceKernel& k : plan.ranks[0].kernels)
    if (k.name == name) return k;
  throw BugError("no kernel " + name);
}

TEST(PlanTime, KernelsTakeWhatAPrototypesTook) {
  const std::map<std::string, double> microseconds = {{"pack weights", 0},
                                                      {"parts of users and items", 16},
                                                      {"rows", 132},
                                                      {"leaf gradients", 32},
                                                      {"sums of part gradients", 124},
                                                      {"ids, backward", 13},
                                                      {"leaf gradients of ids", 46},
                                                      {"tree", 4.5},
                                                      {"norms", .69},
                                                      {"judge", 0},
                                                      {"update", 5}};
  const Plan plan = make_plan(ncf_on_a_device(65'536));
  EXPECT_EQ(plan.ranks[0].kernels.size(), microseconds.size());
  double all = 0;
  for (const DeviceKernel& k : plan.ranks[0].kernels) {
    EXPECT_EQ(k.launches, 1) << k.name;
    const double launch =
        std::string_view(k.name) == "leaf gradients" ? 0 : 5;  // nothing waits for that one's
    EXPECT_NEAR(1e6 * k.seconds - launch, microseconds.at(k.name),
                .02 * microseconds.at(k.name) + .02)
        << k.name;
    all += k.seconds;
  }
  EXPECT_DOUBLE_EQ(plan.compute_seconds, all);
  // The whole prototype at other batches, M samples/s; it was 15 % behind its kernels at the largest.
  for (const auto& [batch, measured] :
       std::map<int64_t, double>{{4096, 41}, {16384, 86}, {65536, 152}, {262144, 169}}) {
    const Plan other = make_plan(ncf_on_a_device(batch));
    const double planned =
        static_cast<double>(other.training_rows) / other.epoch_and_steps_seconds() / 1e6;
    EXPECT_NEAR(planned / measured, 1, batch == 262'144 ? .2 : .05) << batch;
  }
}

TEST(PlanTime, KernelsGoThroughWhatTheirRowsAndIdsNeed) {
  const Plan plan = make_plan(ncf_on_a_device(262'144));
  const double n = 262'144, users = 7176, items = 10728;  // all of them come
  EXPECT_DOUBLE_EQ(kernel(plan, "rows").operations, n * (1137 + 1056));
  EXPECT_DOUBLE_EQ(kernel(plan, "rows").bytes, n * (16 + 4 * (4 * 32 + 48 + 32)));
  EXPECT_DOUBLE_EQ(kernel(plan, "leaf gradients").operations, n * 1073);
  EXPECT_DOUBLE_EQ(kernel(plan, "leaf gradients").bytes, 4 * (n * 80 + 64 * (33 * 16 + 17)));
  EXPECT_DOUBLE_EQ(kernel(plan, "sums of part gradients").operations, n * 64);
  const double ids = users * 2048 + items * 4096;
  EXPECT_NEAR(kernel(plan, "ids, backward").operations, ids, 1e-3 * ids);
  const double all = 577'089;
  EXPECT_DOUBLE_EQ(kernel(plan, "update").operations, 17 * all);
  EXPECT_DOUBLE_EQ(kernel(plan, "update").bytes, 4 * 7 * all);
  EXPECT_DOUBLE_EQ(kernel(plan, "tree").bytes, 4 * 65 * 4161);
  EXPECT_DOUBLE_EQ(kernel(plan, "norms").bytes, 4 * all);
}

TEST(PlanTime, KernelsOfASlowerMemoryAreItsOwn) {
  PlanInputs inputs = ncf_on_a_device(65'536);
  inputs.device.memory_bandwidth /= 100;
  const Plan plan = make_plan(inputs);
  for (const DeviceKernel& k : plan.ranks[0].kernels)
    EXPECT_NEAR(k.seconds,
                (std::string_view(k.name) == "leaf gradients" ? 0 : 5e-6) + k.bytes / (.7 * 48e9),
                1e-9)
        << k.name;
  EXPECT_NEAR(plan.epoch_seconds, 100 * make_plan(ncf_on_a_device(65'536)).epoch_seconds, 1e-9);
}

TEST(PlanTime, ExactFormOnSeveralDevicesHasWhatItSends) {
  PlanInputs inputs = ncf_on_a_device(65'536);
  const auto count = [&](int64_t ranks, Reduce reduce) {
    inputs.ranks = ranks;
    inputs.config.parallel.reduce = reduce;
    return make_plan(inputs).ranks[0].kernels.size();
  };
  EXPECT_EQ(count(1, Reduce::kFast), count(1, Reduce::kExact));
  EXPECT_EQ(count(4, Reduce::kFast), count(1, Reduce::kFast));
  EXPECT_EQ(count(4, Reduce::kExact), count(1, Reduce::kExact) + 3);
}

TEST(PlanMemory, OnDevicesIsOfRowsAndIds) {
  PlanInputs inputs = ncf_on_a_device(65'536);
  const auto memory = [&] { return make_plan(inputs).ranks[0].memory; };
  const double rows = 65'536, users = 7176, items = 10728;
  EXPECT_EQ(bytes_of(memory(), "rows prepared at once, 136 B each"), 136 * (1 << 22));
  EXPECT_EQ(
      bytes_of(memory(), "rows and ids of a step, exchange"),
      4 * (rows * (64 + 80) + users * (64 + 64) + items * (64 + 144) + inputs.arithmetic.packed));
  EXPECT_EQ(bytes_of(memory(), "parts of users and items"), 4 * 32 * (users + items));
  // A block's workspace is a team's own, or where it does not fit there in device memory.
  inputs.workspace = 50'000;
  EXPECT_EQ(bytes_of(memory(), "activations"), 0);
  inputs.workspace = 60'000;
  EXPECT_EQ(bytes_of(memory(), "activations"), 264 * 4 * 60'000);
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

TEST(PlanFlops, AreThoseOfRowsIdsAndTheUpdate) {
  PlanInputs inputs = small_inputs(8, 2);
  inputs.config.train.optimizer.name = OptimizerName::kSgd;
  const Plan plan = make_plan(inputs);
  double rows = 0, users = 0, samples = 0;
  for (const int64_t of_shard : inputs.shard_rows) rows += .9 * static_cast<double>(of_shard);
  for (size_t j = 0; j < inputs.shard_rows.size(); ++j) {
    const double draws =
        .9 * static_cast<double>(inputs.shard_rows[j]) / static_cast<double>(plan.steps);
    const auto of_shard = static_cast<double>(inputs.shard_users[j]);
    users += of_shard * (1 - std::pow(1 - 1 / of_shard, draws));
    samples += draws;
  }
  const double items = kItems * (1 - std::pow(1 - 1. / kItems, samples));
  // Both ranks update the dense arrays.
  const double update = 5. * (kUsers * kCols + kItems * (kCols + 1) + 2 * (13 * 5 + 5));
  EXPECT_NEAR(plan.flops, 500 * samples + 30 * users + 70 * items + update, 1e-6);
}

TEST(PlanFlops, OfNcfAreSixAWeight) {
  // 15 features: their products have no gradient of an input.
  const Layers ncf =
      make_default_system("ncf", {.users = 10, .items = 20, .columns = {0, 15, 0}}).graph;
  const double content = 4 * 15 * 32 + 2 * 32, hidden1 = 6 * 96 * 32 + 2 * 32;
  const double rest = 6 * 32 * 16 + 2 * 16 + 6 * 16 + 2;
  const fused::CompiledModel rows(ncf, Form::kRows), ids(ncf, Form::kIds);
  const fused::Arithmetic of_rows = fused::arithmetic_of(rows), of_ids = fused::arithmetic_of(ids);
  EXPECT_EQ(of_rows.user.operations(), 0);
  EXPECT_EQ(of_rows.item.operations(), 0);
  EXPECT_EQ(of_rows.row.operations(), content + hidden1 + rest + 2 * 32);  // gathered embeddings
  EXPECT_EQ(of_ids.user.operations(), 6 * 32 * 32 + 2 * 32);  // the bias is in the users' share
  EXPECT_EQ(of_ids.item.operations(), content + 6 * 64 * 32);
  EXPECT_EQ(of_ids.row.operations(), rest + 2 * 32);  // the sum of two shares
}

TEST(PlanFlops, OfNcfByWhatMakesThem) {
  const Layers ncf =
      make_default_system("ncf", {.users = 10, .items = 20, .columns = {0, 15, 0}}).graph;
  const auto [user, item, row, packed] = fused::arithmetic_of({ncf, Form::kIds});
  EXPECT_EQ(item.forward, 2 * (15 * 32 + 64 * 32) + 32);
  EXPECT_EQ(item.backward, 2 * 64 * 32);
  EXPECT_EQ(item.gradients, item.forward);
  EXPECT_EQ(item.weights, 15 * 32 + 64 * 32 + 32);
  EXPECT_EQ(item.inputs, 16 + 32 + 32);  // whole vectors of 15 features, the table's row, content
  EXPECT_EQ(item.slopes, 32 + 32);
  EXPECT_EQ(row.forward, 2 * (32 * 16 + 16) + 16 + 1 + 2 * 32);
  EXPECT_EQ(row.backward, 2 * (32 * 16 + 16));
  EXPECT_EQ(row.inputs, 32 + 16);
  EXPECT_EQ(row.slopes, 16 + 16);
  int64_t dense = 0;
  for (const ParameterSpec& spec : ncf.parameters())
    if (spec.kind == ParameterKind::kDense) dense += spec.size();
  EXPECT_EQ(user.weights + item.weights + row.weights, dense);
  EXPECT_GT(packed, 2 * static_cast<double>(dense));
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
