// How often the ranks of a step wait, what they send, and that the plan says so.
#include <fmt/core.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>

#include "models/systems/registry.h"
#include "sharding/exchange.h"
#include "tests/trainer/planned_step.h"
#include "tests/trainer/played_ranks.h"
#include "trainer/run/engine_choice.h"

namespace kt {
namespace {

struct Hosts {
  const char* name;
  int ranks;  // of each; 0: all are on one
};

class Waits : public ::testing::TestWithParam<std::tuple<int, Hosts, Reduce>> {
 protected:
  static constexpr int64_t kShards = 64;
  const int ranks = std::get<0>(GetParam());
  const Hosts hosts = std::get<1>(GetParam());
  const int a_host = hosts.ranks > 0 ? hosts.ranks : ranks;
  const Reduce reduce = std::get<2>(GetParam());
  const bool exact = reduce == Reduce::kExact;
  const std::vector<ShardSamples> samples = samples_of(kShards);

  static std::unique_ptr<Engine> make() {
    Config config;
    config.model.engine = EngineName::kFused;
    config.model.form = FormName::kIds;
    return make_engine(make_default_system("ncf", {.users = kUsers, .items = kItems}),
                       engine_options(config));
  }
  PlanInputs inputs_for(const Engine& engine) const {
    PlanInputs inputs;
    inputs.config.parallel.reduce = reduce;
    inputs.config.model.engine = EngineName::kFused;
    inputs.config.model.form = FormName::kIds;
    inputs.config.train.global_batch = 400;
    inputs.config.data.validation.fraction = 0;
    inputs.parameters = engine.parameters();
    inputs.users = kUsers;
    inputs.items = kItems;
    inputs.dropout_width = engine.dropout_width();
    inputs.user_part = engine.part_width(Side::kUser);
    inputs.item_part = engine.part_width(Side::kItem);
    inputs.ranks = ranks;
    inputs.nodes = ranks / a_host;
    inputs.device = find_device("cpu");
    for (const ShardSamples& shard : samples) {
      inputs.shard_users.push_back(std::ssize(shard.users));
      inputs.shard_rows.push_back(std::ssize(shard.train));
    }
    return inputs;
  }
  static constexpr int64_t kStep = 1;  // the first one has to be announced by itself

  /// What a step calls, and how often the ranks of a host meet in it. Shapes: meetings [ranks].
  std::vector<std::vector<PlayedRank::Call>> play(const PlanInputs& inputs,
                                                  const Schedule& schedule,
                                                  std::span<int64_t> meetings) const {
    return play_ranks(ranks, a_host, [&](PlayedRank& comm) {
      const auto engine = make();
      Parameters parameters(specs_of(engine->parameters()), inputs.shard_users, kItems,
                            comm.world(), exact ? Holding::kOwnBlocks : Holding::kReplica, {});
      ThreadPool pool(1);
      Exchange::Options options = exchange_options(*engine, parameters, schedule, pool);
      options.host = comm.host();
      const auto exchange = exact ? make_exact_exchange(parameters, comm, options)
                                  : make_fast_exchange(parameters, comm, options);
      const Range own = parameters.shards();
      TrainStep step(*engine, parameters, *exchange, comm, pool, schedule,
                     std::span(samples).subspan(own.begin, own.size()), {}, {}, {.seed = 1});
      KT_CHECK(step.run(0, kStep - 1, 1e-3, 1).updated, "no update");
      comm.calls.clear();
      const int64_t before = exchange->meetings();
      KT_CHECK(step.run(0, kStep, 1e-3, 2).updated, "no update");
      meetings[comm.world().rank] = exchange->meetings() - before;
    });
  }
};

INSTANTIATE_TEST_SUITE_P(Worlds, Waits,
                         ::testing::Combine(::testing::Values(2, 4, 8, 16, 64),
                                            ::testing::Values(Hosts{"OneHost", 0},
                                                              Hosts{"TwoAHost", 2},
                                                              Hosts{"OneAHost", 1}),
                                            ::testing::Values(Reduce::kExact, Reduce::kFast)),
                         [](const auto& test) {
                           return fmt::format(
                               "{}Ranks{}{}", std::get<0>(test.param), std::get<1>(test.param).name,
                               std::get<2>(test.param) == Reduce::kExact ? "Exact" : "Fast");
                         });

TEST_P(Waits, OfAStepAreThosePlanned) {
  const auto engine = make();
  const PlanInputs inputs = inputs_for(*engine);
  const Schedule schedule(inputs.shard_rows, inputs.config.train.global_batch);
  std::vector<int64_t> meetings(ranks);
  const auto calls = play(inputs, schedule, meetings);
  StepItems requests = requests_of_step(samples, schedule, kStep, ranks);
  requests.next_rows = requests_of_step(samples, schedule, kStep + 1, ranks).rows;
  std::vector<Collective> planned = step_collectives(inputs, requests);
  const auto met = std::ranges::stable_partition(
      planned, [](const Collective& c) { return c.operation != "meet"; });
  const int64_t planned_meetings = std::ssize(met);
  planned.erase(met.begin(), met.end());
  for (int r = 0; exact && a_host > 1 && r < ranks; ++r) EXPECT_EQ(meetings[r], planned_meetings);

  std::vector<int64_t> rounds(planned.size(), 0);  // of the rank that has most
  for (int r = 0; r < ranks; ++r) {
    ASSERT_EQ(calls[r].size(), planned.size()) << "rank " << r;
    for (size_t c = 0; c < planned.size(); ++c) {
      const std::string place = fmt::format("{} of rank {}", planned[c].what, r);
      const Traffic &got = calls[r][c].traffic, &want = planned[c].ranks[r];
      EXPECT_EQ(calls[r][c].operation, planned[c].operation) << place;
      EXPECT_EQ(got.messages, want.messages) << place;
      EXPECT_EQ(got.remote_messages, want.remote_messages) << place;
      // Round a ring the plan cuts an array into equal parts, the ranks into whole elements.
      const double uneven =
          planned[c].operation == "all_reduce" && planned[c].rounds >= 2 * (ranks - 1)
              ? 4. * static_cast<double>(planned[c].rounds)
              : 0;
      EXPECT_NEAR(got.sent_bytes, want.sent_bytes, uneven) << place;
      EXPECT_NEAR(got.received_bytes, want.received_bytes, uneven) << place;
      EXPECT_NEAR(got.remote_sent_bytes, want.remote_sent_bytes, uneven) << place;
      EXPECT_NEAR(got.remote_received_bytes, want.remote_received_bytes, uneven) << place;
      rounds[c] = std::max(rounds[c], calls[r][c].rounds);
    }
  }
  int64_t waits = 0, all_rounds = 0;
  for (size_t c = 0; c < planned.size(); ++c) {
    EXPECT_EQ(rounds[c], planned[c].rounds) << planned[c].what;
    waits += rounds[c] > 0;
    all_rounds += rounds[c];
  }
  waits += planned_meetings;
  all_rounds += planned_meetings;
  const Plan plan = make_plan(inputs);
  EXPECT_EQ(plan.waits, waits);
  EXPECT_EQ(plan.rounds, all_rounds);
  if (exact) {
    int64_t dense = 0;
    for (const ParameterSpec& spec : inputs.parameters)
      if (spec.kind == ParameterKind::kDense) dense += spec.size();
    // Parts, gradients, and what all are told: in place, by messages, or of the first two both. More where there are
    // so many subtrees that each rank sums a slice of them.
    const bool one_host = a_host == ranks;
    const int slices = sums_in_slices(ranks, dense, ranks);
    EXPECT_EQ(slices, ranks > 16);
    EXPECT_EQ(waits, (one_host || a_host == 1 ? 3 : 5) + slices);
    EXPECT_EQ(all_rounds, slices +
                              (one_host      ? 3
                               : a_host == 1 ? 2
                                             : 4) +
                              (one_host ? 0 : ranks - 1));
  } else {
    const auto tables =
        std::ranges::count(inputs.parameters, ParameterKind::kItemTable, &ParameterSpec::kind);
    EXPECT_GT(tables, 0);
    EXPECT_EQ(waits, 2 + tables);
  }
}

}  // namespace
}  // namespace kt
