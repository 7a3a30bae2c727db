#pragma once

#include <gmock/gmock.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "io/dataset/import.h"
#include "launch/base/log.h"
#include "launch/base/random.h"
#include "launch/collectives/agree.h"
#include "sharding/assignment.h"
#include "sharding/schedule.h"
#include "tests/support/mpi_test.h"
#include "trainer/evaluation/predictor.h"
#include "trainer/run/engine_choice.h"
#include "trainer/run/fitting.h"
#include "trainer/run/problem.h"
#include "trainer/run/samples.h"
#include "trainer/run/weights.h"

/// A small data set, imported for a test on real ranks.
namespace kt {

/// The message of the UserError that `work` throws on this rank; empty when it throws none.
template <class Work>
std::string user_error_of(Work&& work) {
  try {
    work();
  } catch (const UserError& error) {
    return error.what();
  }
  return {};
}

struct PlainRow {
  int32_t user, item;
  float label;
  double time;
};

constexpr int32_t kSmallUsers = 40;
constexpr int32_t kSmallItems = 25;

/// One user has a third of the rows; the last six users and the last item have none. Ratios up to 8. Many
/// rows share a time, some are from before 1970.
inline std::vector<PlainRow> small_table() {
  std::vector<PlainRow> rows;
  for (uint64_t k = 0; k < 1200; ++k) {
    const auto draw = [k](uint64_t what, uint64_t n) {
      return static_cast<int32_t>(random_bits(what, Purpose::kSynthetic, k) % n);
    };
    const int32_t user = draw(1, 3) == 0 ? 7 : draw(2, kSmallUsers - 6);
    const int32_t item = draw(3, kSmallItems - 1);
    const float taste = (user % 3 == item % 3 ? 1.5f : .25f) + static_cast<float>(item) / 50;
    const float label = draw(4, 20) == 0 ? 8.f : taste + static_cast<float>(draw(5, 100)) / 200;
    rows.push_back({user, item, label, static_cast<double>(draw(6, 300) - 50) * .5});
  }
  return rows;
}

/// Test pairs of every user, a different number each: users, items as in the table.
inline std::vector<PlainRow> small_test() {
  std::vector<PlainRow> rows;
  for (int32_t user = 0; user < kSmallUsers; ++user)
    for (int32_t item = 0; item < kSmallItems; ++item)
      if (user == 0 || (user + item) % (1 + user % 5) == 0)
        rows.push_back({user, item, static_cast<float>((user * 7 + item * 3) % 11) / 4, 0});
  return rows;
}

/// Ids of two digits, so that their order is that of the numbers: number = dense index.
inline std::string csv_of(const std::vector<PlainRow>& rows, bool with_time,
                          const std::string& item_prefix) {
  std::string text = with_time ? "who,what,ratio,when\n" : "who,what,ratio\n";
  for (const PlainRow& row : rows) {
    text += fmt::format("u{:02},{}{:02},{}", row.user, item_prefix, row.item, row.label);
    text += with_time ? fmt::format(",{}\n", row.time) : "\n";
  }
  return text;
}

/// Of each user of this rank's shards, the scores of all items.
inline std::map<int32_t, std::vector<float>> scores_of_all_items(
    const Predictor& predictor, std::span<const ShardSamples> samples, int64_t items,
    ThreadPool& pool) {
  std::map<int32_t, std::vector<float>> scores;
  int32_t row = 0;
  for (const ShardSamples& shard : samples)
    for (const int32_t user : shard.users) {
      std::vector<float>& of_user = scores[user];
      of_user.resize(static_cast<size_t>(items));
      predictor.predict(catalogue_of(std::span(&row, 1), items), pool, of_user);
      ++row;
    }
  return scores;
}

/// A fresh folder of all ranks for each test.
class SmallProblem : public MpiTest {
 protected:
  SmallProblem() : self(MPI_COMM_SELF) {}

  void SetUp() override {
    const auto* info = ::testing::UnitTest::GetInstance()->current_test_info();
    std::string name =
        fmt::format("kuaitrain-{}-{}-np{}", info->test_suite_name(), info->name(), world.size);
    for (char& c : name)
      if (c == '/') c = '-';
    root = std::filesystem::path(::testing::TempDir()) / name;
    first([&] {
      std::filesystem::remove_all(root);
      std::filesystem::create_directories(root);
    });
    log_start(world, LogStream::kStdout, true);  // quiet
    config.model.name = "ncf";
    config.model.options = OptionValues(find_system("ncf").options());
    config.model.options.set("content", std::string("none"));
    config.train.global_batch = 64;
  }
  void TearDown() override {
    MpiTest::TearDown();
    first([&] { std::filesystem::remove_all(root); });
  }

  /// On rank 0, while the others wait.
  template <class Work>
  void first(Work&& work) {
    solo(comm, 0, "preparation", work);
  }

  enum class Times { kNone, kEvery };
  /// Imports the small table, and the test with it, and points `config` there.
  Dataset import(int64_t shards, Times times = Times::kEvery, bool with_test = true) {
    const std::filesystem::path out = root / fmt::format("dataset-{}", shards);
    first([&] {
      const bool timed = times == Times::kEvery;
      std::ofstream(root / "train.csv") << csv_of(table, timed, item_prefix);
      std::ofstream(root / "test.csv") << csv_of(test_table, timed, item_prefix);
      ImportOptions options{.source = root / "train.csv",
                            .out = out,
                            .shards = shards,
                            .map = ColumnMap{"who", "what", "ratio", timed ? "when" : ""},
                            .duplicates = Duplicates::kKeep,
                            .threads = 1,
                            .assign_users = assign_users_to_shards};
      if (with_test) options.test = root / "test.csv";
      import_dataset(options);
    });
    config.data.path = out.string();
    const Dataset dataset = Dataset::open(out);
    ids = dataset.read_ids();
    user_row.assign(ids.user_shard.size(), 0);
    int64_t row = 0;
    for (int64_t shard = 0; shard < shards; ++shard)
      for (size_t user = 0; user < user_row.size(); ++user)
        if (ids.user_shard[user] == shard) user_row[user] = row++;
    return dataset;
  }

  /// Straight from the table: the training rows of each shard, as they lie in memory.
  std::vector<std::vector<uint32_t>> training_rows(const Problem& problem) const {
    const auto seed = static_cast<uint64_t>(config.train.seed);
    std::vector<std::vector<uint32_t>> found(problem.dataset.shards());
    for (uint32_t row = 0; row < table.size(); ++row)
      if (to_uniform(random_bits(seed, Purpose::kValidationSplit, row)) >=
          config.data.validation.fraction)
        found[ids.user_shard[table[row].user]].push_back(row);
    for (size_t j = 0; j < found.size(); ++j) {
      const std::vector<uint32_t> in_source_order = found[j];
      const Permutation order = first_order(std::ssize(found[j]), seed, static_cast<int64_t>(j));
      for (size_t k = 0; k < found[j].size(); ++k)
        found[j][k] = in_source_order[order(static_cast<int64_t>(k))];
    }
    return found;
  }
  /// The rows of each step of an epoch, in (shard, position) order.
  std::vector<std::vector<uint32_t>> rows_of_steps(const Problem& problem, int64_t epoch) const {
    const std::vector<std::vector<uint32_t>> rows = training_rows(problem);
    std::vector<int64_t> counts;
    for (const auto& of_shard : rows) counts.push_back(std::ssize(of_shard));
    const Schedule schedule(counts, config.train.global_batch);
    std::vector<std::vector<uint32_t>> steps(schedule.steps());
    for (int64_t t = 0; t < schedule.steps(); ++t) {
      for (int64_t j = 0; j < std::ssize(rows); ++j) {
        const EpochOrder order =
            epoch_order(counts[j], static_cast<uint64_t>(config.train.seed), epoch, j);
        const Range positions = schedule.positions(j, t);
        for (int64_t position = positions.begin; position < positions.end; ++position)
          steps[t].push_back(rows[j][order(position)]);
      }
    }
    return steps;
  }

  std::vector<PlainRow> table = small_table();
  std::vector<PlainRow> test_table = small_test();
  std::string item_prefix = "v";
  IdTables ids;                   ///< of the data set imported last
  std::vector<int64_t> user_row;  ///< [users] in its user tables
  std::filesystem::path root;
  Config config;
  MpiCommunicator self;  ///< one process alone
};

/// A problem that is ready for its steps.
struct FittedProblem {
  /// Collective: all ranks.
  FittedProblem(Problem opened, MpiCommunicator& ranks, int threads)
      : problem(std::move(opened)),
        parameters(make_parameters(problem, ranks.world())),
        samples(load_samples(problem.dataset, problem.config, parameters.shards(), ranks)),
        pool(threads) {
    fit(problem, parameters, samples, ranks, pool);
    initialize(parameters, problem);
  }

  Problem problem;
  Parameters parameters;
  std::vector<ShardSamples> samples;
  ThreadPool pool;
};

/// An array in full, in its own row order. Collective: all ranks.
inline std::vector<float> whole_array(Parameters& parameters, size_t a, Communicator& comm) {
  ParameterArray& array = parameters.arrays[a];
  const std::vector<int64_t> ones(comm.world().size, 1);
  std::vector<int64_t> counts(comm.world().size);
  const int64_t own = array.owned.size() * array.spec.cols;
  comm.all_gather<int64_t>(std::span(&own, 1), counts, ones);
  std::vector<float> whole(array.spec.rows * array.spec.cols);
  comm.all_gather<float>(array.rows(array.value, array.owned), whole, counts);
  return whole;
}

/// Every array in full; the rows of user tables by dense index. Shapes: user_row [users]. Collective: all ranks.
inline std::vector<std::vector<float>> all_arrays(std::span<const int64_t> user_row,
                                                  Parameters& parameters, Communicator& comm) {
  std::vector<std::vector<float>> arrays;
  for (size_t a = 0; a < parameters.arrays.size(); ++a) {
    const ArraySpec& spec = parameters.arrays[a].spec;
    arrays.push_back(whole_array(parameters, a, comm));
    if (spec.kind != ArrayKind::kUserTable) continue;
    std::vector<float> by_user;
    for (const int64_t row : user_row)
      by_user.insert(by_user.end(), arrays[a].begin() + row * spec.cols,
                     arrays[a].begin() + (row + 1) * spec.cols);
    arrays[a] = by_user;
  }
  return arrays;
}

/// Gives every weight a value that depends on nothing but its place, biases too.
inline void fill_weights(Parameters& parameters, double scale) {
  for (size_t a = 0; a < parameters.arrays.size(); ++a) {
    ParameterArray& array = parameters.arrays[a];
    const auto first = static_cast<uint64_t>(array.held.begin * array.spec.cols);
    for (size_t k = 0; k < array.value.size(); ++k)
      array.value[k] = static_cast<float>(
          scale * (2 * to_uniform(random_bits(9, Purpose::kSynthetic, a, first + k)) - 1));
  }
  parameters.copy_dense();
}

}  // namespace kt
