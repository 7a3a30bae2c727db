#include <fmt/core.h>

#include <optional>

#include "models/systems/registry.h"
#include "sharding/exchange.h"
#include "tests/support/mpi_test.h"
#include "tests/trainer/planned_step.h"
#include "trainer/run/engine_choice.h"
#include "trainer/steps/means_step.h"
#include "trainer/steps/shared_tables.h"
#include "trainer/steps/train_step.h"

namespace kt {
namespace {

/// Writes down what this rank sends and receives, and passes each call on.
class CountingCommunicator : public Communicator {
 public:
  struct Call {
    std::string operation;
    Traffic traffic;
  };
  explicit CountingCommunicator(Communicator& real) : real_(real) {}
  std::vector<Call> calls;

  World world() const override { return real_.world(); }
  void all_reduce(const void* in, void* out, int64_t count, DataType type, Reduction reduction,
                  Stream stream) override {
    Traffic& t = calls.emplace_back("all_reduce").traffic;
    const double bytes = static_cast<double>(count * size_in_bytes(type));
    const int n = world().size;
    if (bytes < 10'000) {
      for (int reached = 1; reached < n; reached *= 2) send(t, bytes), t.received_bytes += bytes;
    } else {
      // A ring: every part goes round once to be summed and once more to be known.
      for (int round = 0; round < 2 * (n - 1); ++round)
        send(t, bytes / n), t.received_bytes += bytes / n;
    }
    real_.all_reduce(in, out, count, type, reduction, stream);
  }
  void all_gather(const void* in, void* out, std::span<const int64_t> counts, DataType type,
                  Stream stream) override {
    Traffic& t = calls.emplace_back("all_gather").traffic;
    const World w = world();
    for (int round = 0; round + 1 < w.size; ++round) {
      const auto part = [&](int rank) {
        return static_cast<double>(counts[(rank + w.size) % w.size] * size_in_bytes(type));
      };
      send(t, part(w.rank - round));
      t.received_bytes += part(w.rank - round - 1);
    }
    real_.all_gather(in, out, counts, type, stream);
  }
  void all_to_all(const void* in, std::span<const int64_t> send_counts, void* out,
                  std::span<const int64_t> receive_counts, DataType type, Stream stream) override {
    Traffic& t = calls.emplace_back("all_to_all").traffic;
    for (int peer = 0; peer < world().size; ++peer) {
      if (peer == world().rank) continue;
      if (send_counts[peer] > 0)
        send(t, static_cast<double>(send_counts[peer] * size_in_bytes(type)));
      t.received_bytes += static_cast<double>(receive_counts[peer] * size_in_bytes(type));
    }
    real_.all_to_all(in, send_counts, out, receive_counts, type, stream);
  }
  void reduce_scatter(const void*, void*, int64_t, DataType, Reduction, Stream) override {
    calls.emplace_back("reduce_scatter");
  }
  void broadcast(void*, int64_t, DataType, int, Stream) override {
    calls.emplace_back("broadcast");
  }
  void barrier() override { calls.emplace_back("barrier"); }
  void synchronize(Stream) override { calls.emplace_back("synchronize"); }
  using Communicator::all_reduce;

 private:
  static void send(Traffic& t, double bytes) {
    ++t.messages;
    t.sent_bytes += bytes;
  }
  Communicator& real_;
};

struct Training {
  int64_t shards;
  Reduce reduce;
  double clip_norm;
};
struct Computed {
  const char* name;
  EngineName engine;
  FormName form;
  bool shares_rows = false;
};

void expect_planned(const std::vector<CountingCommunicator::Call>& calls,
                    const std::vector<Collective>& planned, int rank) {
  ASSERT_EQ(calls.size(), planned.size());
  for (size_t c = 0; c < planned.size(); ++c) {
    const Traffic& got = calls[c].traffic;
    const Traffic& want = planned[c].ranks[rank];
    EXPECT_EQ(calls[c].operation, planned[c].operation) << planned[c].what;
    EXPECT_EQ(got.messages, want.messages) << planned[c].what;
    EXPECT_NEAR(got.sent_bytes, want.sent_bytes, 1e-6) << planned[c].what;
    EXPECT_NEAR(got.received_bytes, want.received_bytes, 1e-6) << planned[c].what;
  }
}

class PlannedStep : public MpiTest,
                    public ::testing::WithParamInterface<std::tuple<Training, Computed>> {
 protected:
  const Training run = std::get<0>(GetParam());
  const bool exact = run.reduce == Reduce::kExact;

  System system_of(int64_t features) const {
    if (!std::get<1>(GetParam()).shares_rows)
      return make_default_system("ncf",
                                 {.users = kUsers, .items = kItems, .columns = {0, features, 0}});
    Layers m;
    const int user = m.user_table("user", kUsers, 4, .1);
    const int code = m.shared_table("code", kItems, 0, 7, 4, .1);
    if (features > 1)
      m.dense("output", m.concat({user, code, m.columns(Side::kItem, 1, 2)}), 1);
    else
      m.dense("output", m.concat({user, code}), 1);
    return {.graph = std::move(m), .objective = {}};
  }
  std::unique_ptr<Engine> make(const System& system) const {
    Config config;
    config.model.engine = std::get<1>(GetParam()).engine;
    config.model.form = std::get<1>(GetParam()).form;
    return make_engine(system, engine_options(config));
  }
  PlanInputs inputs_for(const System& system, const Engine& engine) const {
    PlanInputs inputs;
    inputs.config.parallel.reduce = run.reduce;
    inputs.config.model.engine = std::get<1>(GetParam()).engine;
    inputs.config.model.form = std::get<1>(GetParam()).form;
    inputs.parameters = engine.parameters();
    for (const SharedTable& table : system.graph.shared_tables())
      inputs.parameters.push_back(table.rows);
    inputs.users = kUsers;
    inputs.items = kItems;
    inputs.columns = {0, engine.column_count(Side::kItem), 0};
    inputs.dropout_width = engine.dropout_width();
    inputs.user_part = engine.part_width(Side::kUser);
    inputs.item_part = engine.part_width(Side::kItem);
    inputs.ranks = inputs.nodes = world.size;
    inputs.device = find_device("cpu");
    return inputs;
  }
  Holding holding() const { return exact ? Holding::kOwnBlocks : Holding::kReplica; }
};

std::string name_of_run(const ::testing::TestParamInfo<std::tuple<Training, Computed>>& test) {
  const Training& run = std::get<0>(test.param);
  return fmt::format("V{}{}{}{}", run.shards, run.reduce == Reduce::kExact ? "Exact" : "Fast",
                     run.clip_norm > 0 ? "Clipped" : "", std::get<1>(test.param).name);
}

INSTANTIATE_TEST_SUITE_P(
    Runs, PlannedStep,
    ::testing::Combine(::testing::Values(Training{8, Reduce::kExact, 0},
                                         Training{64, Reduce::kExact, .5},
                                         Training{8, Reduce::kFast, .5},
                                         Training{64, Reduce::kFast, 0}),
                       ::testing::Values(Computed{"Torch", EngineName::kTorch, FormName::kRows},
                                         Computed{"Rows", EngineName::kFused, FormName::kRows},
                                         Computed{"Ids", EngineName::kFused, FormName::kIds})),
    name_of_run);
// Always exact.
INSTANTIATE_TEST_SUITE_P(RunsOfSharedRows, PlannedStep,
                         ::testing::Combine(::testing::Values(Training{8, Reduce::kExact, .5}),
                                            ::testing::Values(Computed{"SharedRows",
                                                                       EngineName::kFused,
                                                                       FormName::kIds, true})),
                         name_of_run);

// The communication of real steps, call by call, is the planned one.
TEST_P(PlannedStep, CommunicatesAsPlanned) {
  const System system = system_of(kFeatures);
  const auto engine = make(system);
  PlanInputs inputs = inputs_for(system, *engine);
  inputs.config.train.clip_norm = run.clip_norm;
  inputs.config.train.global_batch = 50;
  inputs.config.data.validation.fraction = 0;

  const std::vector<ShardSamples> samples = samples_of(run.shards);
  for (const ShardSamples& shard : samples) {
    inputs.shard_users.push_back(std::ssize(shard.users));
    inputs.shard_rows.push_back(std::ssize(shard.train));
  }
  const std::vector<float> features(kItems * kFeatures, .5f);  // as a code: 0

  Parameters parameters(specs_of(inputs.parameters), inputs.shard_users, kItems, world, holding(),
                        {});
  CountingCommunicator counting(comm);
  const Schedule schedule(inputs.shard_rows, inputs.config.train.global_batch);
  ASSERT_GT(schedule.steps(), 2);
  ThreadPool pool(1);
  Exchange::Options options = exchange_options(*engine, parameters, schedule, pool);
  options.host = std::to_string(world.rank);  // what is planned: every rank on a host of its own
  const auto exchange = exact ? make_exact_exchange(parameters, counting, options)
                              : make_fast_exchange(parameters, counting, options);
  const Range own = parameters.shards();
  std::optional<SharedTables> shared;
  if (!system.graph.shared_tables().empty())
    shared.emplace(system.graph.shared_tables(), features.data(), kFeatures, parameters, counting,
                   pool);
  TrainStep step(*engine, parameters, *exchange, counting, pool, schedule,
                 std::span(samples).subspan(own.begin, own.size()), {.items = features.data()}, {},
                 {.seed = 1, .clip_norm = run.clip_norm, .computed = shared ? &*shared : nullptr});
  counting.calls.clear();

  std::vector<double> taken(world.size, 0);
  double repeats = 0;
  for (int64_t t = 0; t < schedule.steps(); ++t) {
    StepItems requests = requests_of_step(samples, schedule, t, world.size);
    // The first step has to be announced by itself, the last one announces one of another epoch.
    const bool usual = t > 0 && t + 1 < schedule.steps();
    if (usual) requests.next_rows = requests_of_step(samples, schedule, t + 1, world.size).rows;
    for (int r = 0; r < world.size; ++r)
      for (int q = 0; q < world.size; ++q) {
        taken[r] += requests.rows[r][q];
        repeats += requests.rows[r][q] - requests.parts[r][q];
      }
    const std::vector<Collective> planned = step_collectives(inputs, requests);

    counting.calls.clear();
    ASSERT_TRUE(step.run(0, t, 1e-3, t + 1).updated);
    if (!usual) continue;
    expect_planned(counting.calls, planned, world.rank);
    if (HasFatalFailure()) return;
    if (world.size > 1 && exact) {
      EXPECT_GT(counting.calls[0].traffic.sent_bytes, 8);  // item parts
    }
  }

  EXPECT_GT(repeats, 10);
  const std::vector<double> average = samples_of_ranks(inputs);
  for (int r = 0; r < world.size; ++r)
    EXPECT_NEAR(taken[r] / static_cast<double>(schedule.steps()), average[r], 1e-9);
}

// What is planned to be held is what is held.
TEST_P(PlannedStep, HoldsWhatIsPlanned) {
  const System system = system_of(0);
  const auto engine = make(system);
  PlanInputs inputs = inputs_for(system, *engine);
  for (int64_t j = 0; j < run.shards; ++j) {
    inputs.shard_rows.push_back(10);
    inputs.shard_users.push_back(users_of_shard(j, run.shards));
  }
  Parameters parameters(specs_of(inputs.parameters), inputs.shard_users, kItems, world, holding(),
                        {});
  ThreadPool pool(1);
  const std::vector<float> codes(kItems, 0);
  const SharedTables shared(system.graph.shared_tables(), codes.data(), 1, parameters, comm, pool);
  const RankPlan rank = make_plan(inputs).ranks[world.rank];
  size_t values = parameters.dense.size(), gradients = 0, slots = 0;
  for (size_t a = 0; a < parameters.arrays.size(); ++a) {
    const ParameterArray& array = parameters.arrays[a];
    values += array.value.size();
    gradients += array.gradient.size();
    slots += array.slots[0].size() + array.slots[1].size();
    EXPECT_EQ(rank.owned[a], array.owned) << array.spec.name;
  }
  EXPECT_EQ(rank.shards, parameters.shards());
  EXPECT_EQ(rank.memory[3].bytes, static_cast<int64_t>(4 * values));
  EXPECT_EQ(rank.memory[4].bytes, static_cast<int64_t>(4 * gradients));
  EXPECT_EQ(rank.memory[5].bytes, static_cast<int64_t>(4 * slots));
}

class PlannedMeans : public MpiTest,
                     public ::testing::WithParamInterface<std::tuple<const char*, Reduce>> {};

INSTANTIATE_TEST_SUITE_P(Systems, PlannedMeans,
                         ::testing::Combine(::testing::Values("global_mean", "user_mean",
                                                              "user_mean/moments", "video_mean",
                                                              "video_mean/moments",
                                                              "additive_means", "popularity"),
                                            ::testing::Values(Reduce::kExact, Reduce::kFast)),
                         [](const auto& test) {
                           std::string name = std::get<0>(test.param);
                           std::ranges::replace(name, '/', '_');
                           return fmt::format("{}_{}", name, name_of(std::get<1>(test.param)));
                         });

/// Neighbours that are made as often take turns.
std::vector<Collective> call_by_call(const std::vector<Collective>& planned) {
  std::vector<Collective> calls;
  for (size_t begin = 0, end = 0; begin < planned.size(); begin = end) {
    while (end < planned.size() && planned[end].times == planned[begin].times) ++end;
    for (int64_t k = 0; k < planned[begin].times; ++k)
      calls.insert(calls.end(), planned.begin() + begin, planned.begin() + end);
  }
  return calls;
}

// The communication of the one step of means, call by call, is the planned one.
TEST_P(PlannedMeans, CommunicateAsPlanned) {
  constexpr int64_t kShards = 8;
  const auto [name, reduce] = GetParam();
  const std::string_view words = name, system_name = words.substr(0, words.find('/'));
  System system = make_default_system(std::string(system_name), {.users = kUsers, .items = kItems});
  system.means->by_moments = words.ends_with("/moments");
  PlanInputs inputs;
  inputs.config.parallel.reduce = reduce;
  inputs.config.data.validation.fraction = 0;
  inputs.parameters = system.graph.parameters();
  inputs.means = system.means;
  inputs.users = kUsers;
  inputs.items = kItems;
  inputs.ranks = inputs.nodes = world.size;
  inputs.device = find_device("cpu");
  const std::vector<ShardSamples> samples = samples_of(kShards);
  for (const ShardSamples& shard : samples) {
    inputs.shard_users.push_back(std::ssize(shard.users));
    inputs.shard_rows.push_back(std::ssize(shard.train));
  }
  StepItems requests(world.size);
  for (int r = 0; r < world.size; ++r) {
    const Range shards = shards_of_rank(kShards, {r, world.size});
    for (int64_t j = shards.begin; j < shards.end; ++j)
      for (const Sample& sample : samples[j].train)
        ++requests.rows[r][owner_of(sample.item, kShards, world.size)];
  }

  Parameters parameters(specs_of(inputs.parameters), inputs.shard_users, kItems, world,
                        reduce == Reduce::kExact ? Holding::kOwnBlocks : Holding::kReplica, {});
  const Range own = parameters.shards();
  CountingCommunicator counting(comm);
  ThreadPool pool(1);
  MeansStep step(*system.means, system.objective, parameters,
                 std::span(samples).subspan(own.begin, own.size()), counting, pool);
  step.run(0, 0, 0, 1);
  int32_t request = 0;  // what the loop asks of all ranks at the end of a step
  counting.all_reduce(std::span(&request, 1), Reduction::kMax);

  const std::vector<Collective> planned = call_by_call(step_collectives(inputs, requests));
  expect_planned(counting.calls, planned, world.rank);
  double rows = 0;
  for (const Collective& collective : planned)
    if (collective.what == "videos of rows") rows += collective.ranks[world.rank].sent_bytes;
  EXPECT_EQ(rows > 0, system.means->videos && world.size > 1);
}

}  // namespace
}  // namespace kt
