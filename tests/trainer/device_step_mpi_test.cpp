// Steps on a device over the stand-ins of CUDA and NCCL: what is enqueued, in which order, and what waits for what.
#include <gmock/gmock.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <set>

#include "launch/base/parallel_for.h"
#include "launch/collectives/nccl_communicator.h"
#include "launch/process/device.h"
#include "tests/support/mpi_test.h"
#include "tests/support/nccl_stand_in/stand_in.h"
#include "tests/trainer/small_problem.h"
#include "trainer/devices/device_samples.h"
#include "trainer/devices/device_step.h"

namespace kt {
namespace {

using ::testing::ElementsAre;

constexpr int64_t kShards = 8, kItems = 5;
const std::vector<int64_t> kUsersPerShard{2, 0, 3, 1, 1, 0, 2, 1};
const std::vector<int64_t> kSamplesPerShard{30, 0, 41, 7, 12, 0, 23, 1};

std::vector<ShardSamples> samples_of(Range shards) {
  std::vector<ShardSamples> samples(static_cast<size_t>(shards.size()));
  for (int64_t j = shards.begin; j < shards.end; ++j) {
    ShardSamples& shard = samples[j - shards.begin];
    shard.users.resize(static_cast<size_t>(kUsersPerShard[j]));
    for (int64_t k = 0; k < kSamplesPerShard[j]; ++k) {
      shard.train.push_back({.user = static_cast<int32_t>(k % kUsersPerShard[j]),
                             .item = static_cast<int32_t>((k + j) % kItems),
                             .label = static_cast<float>(100 * j + k),
                             .row = static_cast<uint32_t>(1000 * j + k)});
    }
  }
  return samples;
}

/// A stream is busy for a while: one that does not wait for it gets ahead.
void keep_busy(cudaStream_t stream) {
  for (int k = 0; k < 60; ++k) enqueue_host(stream, [] {});
}

class OnDevice : public MpiTest {
 protected:
  OnDevice() : devices(comm) {}
  void TearDown() override {
    devices.finish();
    MpiTest::TearDown();
  }
  NcclCommunicator devices;
};

class Sampling : public OnDevice, public ::testing::WithParamInterface<bool> {
 protected:
  Sampling() {
    if (!GetParam()) stand_in::set_faults({.free_bytes = 500});
  }
  ~Sampling() override { stand_in::set_faults({}); }

  const Range shards = shards_of_rank(kShards, world);
  const std::vector<ShardSamples> samples = samples_of(shards);
  const Schedule schedule{kSamplesPerShard, 9};
  const StepRows rows{schedule, shards, 1};
  DeviceSamples::Source source() const {
    return {.schedule = schedule,
            .rows = rows,
            .shards = shards,
            .samples = samples,
            .objective = {},
            .negatives = nullptr,
            .columns = {},
            .column_count = 0,
            .seed = 3};
  }
  /// So many from `step` on, as far as there are any.
  Range some(int64_t step, int64_t count) const {
    return {step, std::min(step + count, schedule.steps())};
  }
};
INSTANTIATE_TEST_SUITE_P(Samples, Sampling, ::testing::Bool(),
                         [](const auto& test) { return test.param ? "Resident" : "Sent"; });

struct Taken {
  std::vector<int32_t> user, item;
  std::vector<float> label;
  std::vector<uint32_t> dropout_key;
  bool operator==(const Taken&) const = default;
};

TEST_P(Sampling, EveryStepHasItsSamples) {
  DeviceStream stream;
  DeviceSamples on_device(source(), 2, devices, stream);
  EXPECT_EQ(on_device.resident(), GetParam());

  for (const int64_t epoch : {4, 5}) {
    // In the order of an epoch, and as a run goes that went back to a checkpoint and passes over a step.
    std::vector<int64_t> steps(static_cast<size_t>(schedule.steps()));
    std::iota(steps.begin(), steps.end(), 0);
    if (epoch == 4)
      steps.insert(steps.end(), {2, 3, 5, 5, 6});
    else
      steps.insert(steps.begin(), 7);  // which the other epoch has been about to take
    std::vector<Taken> taken(steps.size()), expected(steps.size());
    on_device.begin_epoch(epoch);
    const auto taken_at = [&](size_t s) { return some(steps[s], 1 + static_cast<int64_t>(s) % 2); };
    const auto expect_shard = [&](int64_t step, int64_t j, Taken& to) {
      const Samples& train = samples[j - shards.begin].train;
      const auto first = static_cast<int32_t>(std::accumulate(
          kUsersPerShard.begin() + shards.begin, kUsersPerShard.begin() + j, int64_t{0}));
      const EpochOrder order = epoch_order(kSamplesPerShard[j], 3, epoch, j);
      const Range positions = schedule.positions(j, step);
      for (int64_t p = positions.begin; p < positions.end; ++p) {
        const Sample& sample = train[order(p)];
        to.user.push_back(first + sample.user);
        to.item.push_back(sample.item);
        to.label.push_back(sample.label);
        to.dropout_key.push_back(dropout_key(3, static_cast<uint64_t>(epoch), sample.row));
      }
    };
    for (size_t s = 0; s < steps.size(); ++s) {
      for (int64_t t = taken_at(s).begin; t < taken_at(s).end; ++t)
        for (int64_t j = shards.begin; j < shards.end; ++j) expect_shard(t, j, expected[s]);
      const DeviceSamples::Rows step = on_device.take(taken_at(s));
      // A slow reader, which what is brought too early overwrites, among those that read as early as they can.
      if (s % 4 == 1) keep_busy(stream);
      enqueue_host(stream, [step, n = expected[s].user.size(), to = &taken[s]] {
        *to = {{step.user, step.user + n},
               {step.item, step.item + n},
               {step.target, step.target + n},
               {step.dropout_key, step.dropout_key + n}};
      });
      on_device.fetch_ahead(some(taken_at(s).end, 1 + static_cast<int64_t>(s + 1) % 2));
    }
    devices.synchronize(stream.handle());
    for (size_t s = 0; s < steps.size(); ++s)
      EXPECT_EQ(taken[s], expected[s]) << "step " << steps[s] << " of epoch " << epoch;
  }
}

TEST_P(Sampling, TheHostIsAheadOfTheDevice) {
  DeviceStream stream;
  DeviceSamples on_device(source(), 1, devices, stream);
  on_device.begin_epoch(0);
  stand_in::hold();  // a wait for the device would last for ever
  on_device.take({0, 1});
  on_device.fetch_ahead({1, 2});
  on_device.take({1, 2});
  stand_in::release();
  devices.synchronize(stream.handle());
}

/// Two tables and four dense arrays.
class Shape final : public LeafEngine {
 public:
  const std::vector<ParameterSpec>& parameters() const override { return specs_; }
  int64_t column_count(Side) const override { return 0; }
  int64_t dropout_width() const override { return 0; }
  std::span<const DropoutColumns> dropouts() const override { return {}; }
  double loss_and_gradients(const LeafInput&, double, const LeafGradients&) const override {
    return 0;
  }
  void predict(const LeafInput&, std::span<float>) const override {}

 private:
  std::vector<ParameterSpec> specs_{
      {"user", ParameterKind::kUserTable, 10, 1}, {"first", ParameterKind::kDense, 3, 2},
      {"second", ParameterKind::kDense, 1, 4},    {"item", ParameterKind::kItemTable, kItems, 2},
      {"third", ParameterKind::kDense, 5, 1},     {"last", ParameterKind::kDense, 1, 1}};
};
constexpr int64_t kDense = 4;

/// What happens, in order, on the host: "written K", "returned", "all_reduce N".
using Journal = std::vector<std::string>;

/// Writes gradient k of rank r as 100 (r + 1) + 10 k + element, slowly, in an order of the rank's own.
class SlowEngine final : public DeviceEngine {
 public:
  SlowEngine(int rank, Journal& journal) : rank_(rank), journal_(journal) {}
  static float gradient(int rank, int64_t k, int64_t element) {
    return static_cast<float>(100 * (rank + 1) + 10 * k + element);
  }
  void loss_and_gradients(const LeafInput& input, double, const LeafGradients& gradients,
                          double* loss, Stream stream, const Written& written) const override {
    auto* queue = static_cast<cudaStream_t>(stream.handle);
    stream_ = queue;
    enqueue_host(queue, [=, rank = rank_] {
      *loss = rank + 1;
      for (const std::span<float> table : gradients.tables)
        std::fill(table.begin(), table.end(), 1.f);
    });
    for (int64_t turn = 0; turn < kDense; ++turn) {
      const int64_t k = (2 * kDense - 1 - turn - rank_) % kDense;
      int64_t begin = 0;
      for (int64_t other = 0; other < k; ++other) begin += std::ssize(input.dense[other]);
      keep_busy(queue);
      enqueue_host(queue, [=, size = std::ssize(input.dense[k]), rank = rank_] {
        for (int64_t e = 0; e < size; ++e) gradients.dense[begin + e] = gradient(rank, k, e);
      });
      journal_.push_back(fmt::format("written {}", k));
      written(static_cast<size_t>(k));
    }
    journal_.emplace_back("returned");
  }
  void predict(const LeafInput&, std::span<float>, Stream) const override {}
  cudaStream_t stream() const { return stream_; }

 private:
  int rank_;
  Journal& journal_;
  mutable cudaStream_t stream_ = nullptr;
};

/// Writes down the reductions.
class WrittenDown final : public Communicator {
 public:
  WrittenDown(Communicator& comm, Journal& journal) : comm_(comm), journal_(journal) {}
  World world() const override { return comm_.world(); }
  void all_reduce(const void* in, void* out, int64_t count, DataType type, Reduction reduction,
                  Stream stream) override {
    journal_.push_back(fmt::format("all_reduce {}", count * size_in_bytes(type)));
    streams.push_back(stream.handle);
    comm_.all_reduce(in, out, count, type, reduction, stream);
  }
  void reduce_scatter(const void*, void*, int64_t, DataType, Reduction, Stream) override { FAIL(); }
  void all_gather(const void* in, void* out, std::span<const int64_t> counts, DataType type,
                  Stream stream) override {
    comm_.all_gather(in, out, counts, type, stream);
  }
  void broadcast(void*, int64_t, DataType, int, Stream) override { FAIL(); }
  void all_to_all(const void*, std::span<const int64_t>, void*, std::span<const int64_t>, DataType,
                  Stream) override {
    FAIL();
  }
  void barrier() override { comm_.barrier(); }
  void synchronize(Stream stream) override { comm_.synchronize(stream); }
  std::vector<void*> streams;

 private:
  Communicator& comm_;
  Journal& journal_;
};

using FastStep = OnDevice;

TEST_F(FastStep, DenseGradientsAreReducedDuringBackward) {
  const auto shape = make_engine_of_leaves(std::make_unique<Shape>());
  Parameters parameters({{"user", ArrayKind::kUserTable, 10, 1},
                         {"first", ArrayKind::kDense, 3, 2},
                         {"second", ArrayKind::kDense, 1, 4},
                         {"item", ArrayKind::kItemTable, kItems, 2},
                         {"third", ArrayKind::kDense, 5, 1},
                         {"last", ArrayKind::kDense, 1, 1}},
                        kUsersPerShard, kItems, world, Holding::kReplica,
                        {.rule = OptimizerRule::kSgd});
  const std::vector<ShardSamples> samples = samples_of(parameters.shards());
  const Schedule schedule(kSamplesPerShard, 9);
  Journal journal;
  const SlowEngine engine(world.rank, journal);
  WrittenDown written_down(devices, journal);
  DeviceStep steps(*shape, engine, parameters, schedule, samples, {}, {}, {.bucket_size = 4},
                   written_down, comm);
  constexpr double kRate = 1. / 64;  // exact
  constexpr int64_t kSteps = 3;
  for (int64_t t = 0; t < kSteps; ++t) {
    journal.clear();
    written_down.streams.clear();
    steps.run(0, t, kRate, t + 1);

    // Bytes: {third, last}, {second}, {first}; the loss; the item table. Whatever the order of writing.
    Journal reductions;
    std::copy_if(journal.begin(), journal.end(), std::back_inserter(reductions),
                 [](const std::string& line) { return line.starts_with("all_reduce"); });
    EXPECT_THAT(reductions, ElementsAre("all_reduce 24", "all_reduce 16", "all_reduce 24",
                                        "all_reduce 8", "all_reduce 40"));
    // Each as soon as it and those before it are written, in backward.
    const auto dense_reductions =
        std::count_if(journal.begin(), std::find(journal.begin(), journal.end(), "returned"),
                      [](const std::string& line) { return line.starts_with("all_reduce"); });
    EXPECT_EQ(dense_reductions, 3);
    if (world.rank == 0) {
      EXPECT_THAT(std::vector(journal.begin(), journal.begin() + 8),
                  ElementsAre("written 3", "written 2", "all_reduce 24", "written 1",
                              "all_reduce 16", "written 0", "all_reduce 24", "returned"));
    }
    for (const void* stream : written_down.streams) {
      EXPECT_EQ(stream, written_down.streams[0]);
      EXPECT_NE(stream, engine.stream());
    }
  }
  steps.download(parameters);
  const std::vector<StepOutcome> outcomes = steps.take_outcomes();
  ASSERT_EQ(outcomes.size(), kSteps);
  for (const StepOutcome& outcome : outcomes) {
    EXPECT_EQ(outcome.loss, world.size * (world.size + 1) / 2);
    EXPECT_GT(outcome.gradient_norm, 0);
  }

  int64_t dense = 0, at = 0;
  for (const ParameterArray& array : parameters.arrays) {
    if (array.spec.kind != ArrayKind::kDense) continue;
    for (int64_t e = 0; e < array.spec.rows * array.spec.cols; ++e, ++at) {
      float sum = 0;
      for (int rank = 0; rank < world.size; ++rank) sum += SlowEngine::gradient(rank, dense, e);
      EXPECT_EQ(parameters.dense[at], -kSteps * static_cast<float>(kRate) * sum)
          << array.spec.name << " " << e;
    }
    ++dense;
  }
}

class Predicting : public SmallProblem, public ::testing::WithParamInterface<Reduce> {
 protected:
  Predicting() : devices(comm) { config.parallel.reduce = GetParam(); }
  void TearDown() override {
    devices.finish();
    SmallProblem::TearDown();
  }
  NcclCommunicator devices;
};
INSTANTIATE_TEST_SUITE_P(Reduces, Predicting, ::testing::Values(Reduce::kExact, Reduce::kFast),
                         [](const auto& test) { return std::string(name_of(test.param)); });

TEST_P(Predicting, ScoresAreThoseOfTheHost) {
  import(8);
  Problem problem = open_problem(config, self);
  problem.system = make_default_system(
      "ncf", {.users = kSmallUsers, .items = kSmallItems, .columns = {0, 3, 0}});
  problem.engine = make_engine(problem.system, {.kind = EngineKind::kTorch});
  for (int64_t k = 0; k < kSmallItems * 3; ++k)
    problem.columns.items.push_back(std::sin(static_cast<float>(k)));
  Parameters parameters = make_parameters(problem, world);
  initialize(parameters, problem);
  const auto samples = load_samples(problem.dataset, config, parameters.shards(), comm);
  const Schedule schedule(gather_train_counts(samples, 8, comm), config.train.global_batch);
  const auto engine = make_device_engine(problem.system, ProductPrecision::kFp32);
  DeviceStep steps(*problem.engine, *engine, parameters, schedule, samples, problem.columns.items,
                   problem.system.objective, {}, devices, comm);
  for (int64_t t = 0; t < 3; ++t) steps.run(0, t, .01, t + 1);
  steps.download(parameters);

  // Each user of this rank with as many candidates as its number says.
  Pairs pairs;
  for (int32_t user = 0; user < kSmallUsers; ++user) {
    const Range own = problem.user_rows(world);
    if (!own.contains(user_row[user])) continue;
    std::vector<int32_t> items;
    for (int32_t k = 0; k <= user % kSmallItems; ++k) items.push_back((7 * k + user) % kSmallItems);
    pairs.add_list(user_row[user] - own.begin, items);
    pairs.end_block();
  }
  ThreadPool pool(2);
  const auto scores = [&](const Predictor& predictor) {
    std::vector<float> result(pairs.size(), -1.f);
    predictor.predict(pairs, pool, result);
    return result;
  };
  const auto expected = scores(*make_host_predictor(problem, parameters, comm));
  // With what the device holds.
  Parameters others = make_parameters(problem, world);
  const auto predictor = steps.make_predictor(problem, others, comm);
  EXPECT_EQ(scores(*predictor), expected);
  EXPECT_GT(std::ssize(std::set<float>(expected.begin(), expected.end())), std::ssize(pairs.user));
}

}  // namespace
}  // namespace kt
