#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "tests/trainer/small_problem.h"
#include "trainer/run/checkpointing.h"

namespace kt {
namespace {

using ::testing::EndsWith;
using ::testing::HasSubstr;

const std::vector<int64_t> kUsersPerShard{2, 0, 3, 1, 1, 0, 2, 1};
const std::vector<ArraySpec> kModel{{"user", ArrayKind::kUserTable, 10, 3},
                                    {"item", ArrayKind::kItemTable, 5, 2},
                                    {"hidden.weight", ArrayKind::kDense, 19, 2},
                                    {"hidden.bias", ArrayKind::kDense, 1, 2}};

/// One update with gradients that depend on nothing but their place.
void update(Parameters& parameters, int64_t step) {
  for (size_t a = 0; a < parameters.arrays.size(); ++a) {
    ParameterArray& array = parameters.arrays[a];
    const auto first = static_cast<uint64_t>(array.held.begin * array.spec.cols);
    for (size_t k = 0; k < array.gradient.size(); ++k)
      array.gradient[k] = static_cast<float>(
          to_uniform(random_bits(static_cast<uint64_t>(step), Purpose::kSynthetic, a, first + k)) -
          .5);
  }
  std::ranges::fill(parameters.user_touched, uint8_t{1});
  std::ranges::fill(parameters.item_touched, uint8_t{1});
  ThreadPool pool(1);
  parameters.update(.1, step, 1, pool);
}

class Checkpointing : public SmallProblem {
 protected:
  Parameters make(World of, Holding holding = Holding::kOwnBlocks,
                  const std::vector<ArraySpec>& model = kModel) const {
    return {model, kUsersPerShard, model[1].rows, of, holding, {}};
  }
  /// After `steps` updates, so that the optimizer's state is filled as well.
  Parameters trained(Communicator& ranks, int64_t steps, Holding holding = Holding::kOwnBlocks) {
    Parameters parameters = make(ranks.world(), holding);
    fill_weights(parameters, 1);
    for (int64_t step = 1; step <= steps; ++step) update(parameters, step);
    parameters.copy_dense();
    return parameters;
  }
  ProgressState at_step(int64_t step) const {
    ProgressState progress;
    progress.step = step;
    progress.epoch_loss = 1. / 3;
    return progress;
  }
  void save(int64_t step, std::optional<int64_t> best = {}) {
    Parameters parameters = trained(comm, step);
    ProgressState progress = at_step(step);
    if (best) progress.best = {.value = .5, .step = *best};
    save_checkpoint(run(), parameters, progress, {{"model.name", "small"}}, 10, comm);
  }
  std::filesystem::path run() const { return root / "run"; }
  /// Changes a byte in the middle of the first part of a checkpoint.
  void damage(int64_t step) {
    first([&] {
      const auto folder = checkpoint_path(run(), step);
      const auto part = folder / Checkpoint::open(folder).parts().at(0).name;
      const auto middle = static_cast<std::streamoff>(std::filesystem::file_size(part) / 2);
      std::fstream file(part, std::ios::in | std::ios::out | std::ios::binary);
      file.seekg(middle);
      const int byte = file.get();
      file.seekp(middle);
      file.put(static_cast<char>(byte ^ 1));
    });
  }
};

// Written by one number of ranks, read by another, then an update more: weights and optimizer state count.
TEST_F(Checkpointing, AnyNumberOfRanksReadsWhatAnyOtherWrote) {
  // All ranks but the last as a world of their own, the last one as another.
  MPI_Comm split = MPI_COMM_NULL;
  MPI_Comm_split(MPI_COMM_WORLD, world.rank == world.size - 1, world.rank, &split);
  MpiCommunicator part(split);
  const std::string expected = [&] {
    Parameters parameters = trained(self, 4);
    return parameters.weights_hash(self);
  }();

  const auto continue_on = [&](const std::filesystem::path& from, MpiCommunicator& ranks,
                               Holding holding) {
    std::optional<Checkpoint> checkpoint = find_checkpoint(from, {}, ranks);
    ASSERT_TRUE(checkpoint);
    EXPECT_EQ(checkpoint->step(), 3);
    EXPECT_EQ(checkpoint->state().at("identity").at("model.name"), "small");
    EXPECT_EQ(progress_from_json(checkpoint->state().at("progress")).epoch_loss, 1. / 3);
    Parameters parameters = make(ranks.world(), holding);
    restore_parameters(*checkpoint, parameters, Restore::kWeightsAndOptimizer, ranks);
    // The full copies of the dense arrays come with it.
    EXPECT_EQ(parameters.dense, trained(ranks, 3).dense);
    update(parameters, 4);
    EXPECT_EQ(parameters.weights_hash(ranks), expected);
  };
  const auto write_on = [&](const std::filesystem::path& to, MpiCommunicator& ranks,
                            Holding holding) {
    Parameters parameters = trained(ranks, 3, holding);
    save_checkpoint(to, parameters, at_step(3), {{"model.name", "small"}}, 2, ranks);
  };

  for (const Holding holding : {Holding::kOwnBlocks, Holding::kReplica}) {
    const std::string name = holding == Holding::kOwnBlocks ? "own" : "replica";
    write_on(root / (name + "-all"), comm, holding);
    if (world.rank == 0) write_on(root / (name + "-one"), self, holding);
    write_on(root / fmt::format("{}-part-{}", name, world.rank == world.size - 1), part, holding);
    comm.barrier();
    std::vector<std::filesystem::path> written{root / (name + "-all"), root / (name + "-one")};
    if (world.size > 1) written.push_back(root / (name + "-part-false"));
    for (const std::filesystem::path& from : written) {
      continue_on(from, comm, holding);
      continue_on(from, self, holding);
      continue_on(from, part, holding);
      continue_on(from, comm,
                  holding == Holding::kOwnBlocks ? Holding::kReplica : Holding::kOwnBlocks);
    }
  }
  EXPECT_EQ(Checkpoint::open(checkpoint_path(root / "own-all", 3)).parts().size(),
            static_cast<size_t>(world.size));
}

TEST_F(Checkpointing, WeightsAloneLeaveTheOptimizerAsItIs) {
  save(3);
  Parameters parameters = make(world);
  std::optional<Checkpoint> checkpoint = find_checkpoint(run(), {}, comm);
  ASSERT_TRUE(checkpoint);
  restore_parameters(*checkpoint, parameters, Restore::kWeights, comm);
  EXPECT_EQ(parameters.weights_hash(comm), trained(comm, 3).weights_hash(comm));
  for (const ParameterArray& array : parameters.arrays)
    for (const auto& slot : array.slots)
      EXPECT_EQ(slot, AlignedFloats(array.value.size(), 0.f)) << array.spec.name;
}

TEST_F(Checkpointing, AnotherModelIsRefused) {
  save(3);
  std::optional<Checkpoint> checkpoint = find_checkpoint(run(), {}, comm);
  ASSERT_TRUE(checkpoint);
  const auto message = [&](size_t a, ArraySpec spec) {
    std::vector<ArraySpec> model = kModel;
    model[a] = spec;
    Parameters parameters = make(world, Holding::kOwnBlocks, model);
    return user_error_of(
        [&] { restore_parameters(*checkpoint, parameters, Restore::kWeights, comm); });
  };
  const std::string place = checkpoint_path(run(), 3).string();
  EXPECT_EQ(message(1, {"item", ArrayKind::kItemTable, 5, 4}),
            place + ": array item: got 5 x 2, expected 5 x 4; this checkpoint is of another model");
  EXPECT_EQ(message(1, {"item", ArrayKind::kItemTable, 6, 2}),
            place + ": array item: got 5 x 2, expected 6 x 2; this checkpoint is of another model");
  EXPECT_EQ(message(3, {"content.bias", ArrayKind::kDense, 1, 2}),
            place +
                ": array content.bias: got none, expected 1 x 2; this checkpoint is of another "
                "model");
}

TEST_F(Checkpointing, AnOptimizerOfMoreStateIsRefused) {
  Parameters plain(kModel, kUsersPerShard, 5, world, Holding::kOwnBlocks,
                   {.rule = OptimizerRule::kSgd});
  fill_weights(plain, 1);
  save_checkpoint(run(), plain, at_step(1), {}, 2, comm);
  std::optional<Checkpoint> checkpoint = find_checkpoint(run(), {}, comm);
  ASSERT_TRUE(checkpoint);
  Parameters parameters = make(world);
  EXPECT_THAT(user_error_of([&] {
                restore_parameters(*checkpoint, parameters, Restore::kWeightsAndOptimizer, comm);
              }),
              HasSubstr("array user.slot1: got none, expected 10 x 3"));
}

TEST_F(Checkpointing, ARunWithoutACheckpointHasNone) {
  EXPECT_FALSE(find_checkpoint(run(), {}, comm));
  EXPECT_FALSE(find_checkpoint(run(), {CheckpointChoice::Which::kBest}, comm));
}

TEST_F(Checkpointing, TheNewestTheBestAndOneByItsPath) {
  for (const int64_t step : {1, 2, 3}) save(step, 2);
  const auto step_of = [&](CheckpointChoice choice) {
    return find_checkpoint(run(), choice, comm).value().step();
  };
  EXPECT_EQ(step_of({}), 3);
  EXPECT_EQ(step_of({CheckpointChoice::Which::kBest}), 2);
  EXPECT_EQ(step_of({CheckpointChoice::Which::kPath, checkpoint_path(run(), 1)}), 1);
}

TEST_F(Checkpointing, OneByItsPathGivesWayToTheRunsOwnOfItsStepOrLater) {
  const std::filesystem::path other = root / "other";
  const auto save_at = [&](const std::filesystem::path& where, int64_t step) {
    Parameters parameters = trained(comm, step);
    save_checkpoint(where, parameters, at_step(step), {}, 10, comm);
  };
  save_at(other, 2);
  const auto path_of = [&](const std::filesystem::path& path) {
    return find_checkpoint(run(), {CheckpointChoice::Which::kPathOrNewer, path}, comm)
        .value()
        .path();
  };
  const std::filesystem::path path = checkpoint_path(other, 2);
  EXPECT_EQ(path_of(path), path);
  save_at(run(), 1);
  EXPECT_EQ(path_of(path), path);
  save_at(run(), 2);
  EXPECT_EQ(path_of(path), checkpoint_path(run(), 2));
  save_at(run(), 3);
  EXPECT_EQ(path_of(path), checkpoint_path(run(), 3));
  EXPECT_EQ(path_of(checkpoint_path(run(), 1)), checkpoint_path(run(), 3));
  damage(3);
  damage(2);
  EXPECT_EQ(path_of(path), path);
  EXPECT_THAT(user_error_of([&] { path_of(other / "nothing"); }), HasSubstr("no such file"));
}

TEST_F(Checkpointing, AStateThatIsNoneOfARunIsRefused) {
  const std::string place = checkpoint_path(run(), 1).string();
  const auto store = [&](const nlohmann::json& state) {
    first([&] {
      const auto temporary = begin_checkpoint(run(), 1);
      commit_checkpoint(run(), 1, temporary, state, {write_checkpoint_part(temporary, 0, {})}, 2,
                        {});
    });
    Checkpoint checkpoint = Checkpoint::open(checkpoint_path(run(), 1));
    comm.barrier();  // before the next one takes its place
    return checkpoint;
  };
  const nlohmann::json good = to_json(at_step(1)), odd = to_json(at_step(2));
  for (const nlohmann::json& state :
       {nlohmann::json(), nlohmann::json(1), nlohmann::json::array(), nlohmann::json::object(),
        nlohmann::json{{"progress", 1}}, nlohmann::json{{"progress", odd}}}) {
    const Checkpoint checkpoint = store(state);
    EXPECT_THAT(user_error_of([&] { progress_of(checkpoint); }), HasSubstr(place)) << state;
    EXPECT_THAT(user_error_of([&] { identity_of(checkpoint); }), HasSubstr(place)) << state;
  }
  EXPECT_EQ(progress_of(store({{"progress", good}, {"identity", {{"a", 1}}}})).step, 1);
}

TEST_F(Checkpointing, TheBestOfARunWithoutMetricIsRefused) {
  save(1);
  EXPECT_EQ(
      user_error_of([&] { find_checkpoint(run(), {CheckpointChoice::Which::kBest}, comm); }),
      run().string() +
          ": no best checkpoint is known: no epoch ended with a value of checkpoint.best; use "
          "evaluate.checkpoint=last");
}

TEST_F(Checkpointing, ADamagedOneIsPassedOverUnlessItIsTheLastOrNamed) {
  save(1);
  save(2);
  damage(2);
  std::optional<Checkpoint> checkpoint = find_checkpoint(run(), {}, comm);
  ASSERT_TRUE(checkpoint);
  EXPECT_EQ(checkpoint->step(), 1);
  EXPECT_THAT(
      user_error_of([&] {
        find_checkpoint(run(), {CheckpointChoice::Which::kPath, checkpoint_path(run(), 2)}, comm);
      }),
      HasSubstr(checkpoint_path(run(), 2).string()));
  damage(1);
  EXPECT_THAT(user_error_of([&] { find_checkpoint(run(), {}, comm); }),
              EndsWith("run: every checkpoint is damaged; train into another run.dir"));
}

TEST_F(Checkpointing, WeightsThatAreNotFiniteAreNotWritten) {
  save(1);
  Parameters parameters = trained(comm, 2);
  if (world.rank == world.size - 1)
    parameters.arrays[0].value.back() = std::numeric_limits<float>::infinity();
  EXPECT_EQ(user_error_of([&] { save_checkpoint(run(), parameters, at_step(2), {}, 2, comm); }),
            "step 2: the weights or the optimizer's state are not finite, so no checkpoint is "
            "written; lower "
            "train.optimizer.lr or set "
            "train.clip_norm, and run again: the newest checkpoint is good");
  EXPECT_EQ(list_checkpoints(run()), std::vector<int64_t>{1});
}

TEST_F(Checkpointing, AFolderThatCannotBeMadeEndsAllRanks) {
  first([&] { std::ofstream(run()) << "a file is in the way"; });
  Parameters parameters = trained(comm, 1);
  EXPECT_THAT(user_error_of([&] { save_checkpoint(run(), parameters, at_step(1), {}, 2, comm); }),
              HasSubstr(run().string()));
}

}  // namespace
}  // namespace kt
