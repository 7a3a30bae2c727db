#include <gtest/gtest.h>

#include <cmath>

#include "launch/base/errors.h"
#include "models/fused/fused_engine.h"
#include "models/systems/registry.h"
#include "sharding/batch_statistics.h"
#include "tests/reference/layers_reference.h"
#include "tests/support/team_on_host.h"

namespace kt {
namespace {

using reference::LayersReference;
using reference::NormedModel;
using reference::Rows;

// Float32 against double: the largest difference, as a part of the largest value of what is compared.
constexpr double kTolerance = 2e-5;

constexpr int64_t kUsers = 9, kItems = 23, kFeatures = 5;
// Rows of the leaves of a batch: none, one, a block and a row, several blocks.
const std::vector<int64_t> kLeaves{0, 1, 40, 3, 0, 65, 17, 200};

std::vector<float> draws(int64_t n, uint64_t seed, double scale, double middle = 0) {
  std::vector<float> values(n);
  for (int64_t k = 0; k < n; ++k)
    values[k] = static_cast<float>(
        middle + scale * (2 * to_uniform(random_bits(seed, Purpose::kSynthetic, k)) - 1));
  return values;
}

/// A batch for a model, its weights far from the initial ones, running values too.
struct Batch {
  std::vector<std::vector<float>> parameters;
  std::vector<float> features = draws(kItems * kFeatures, 3, 2, 1);
  std::vector<int32_t> user, item;
  std::vector<float> label;
  std::vector<uint32_t> key;
  Rows rows;

  explicit Batch(const Layers& model) {
    for (const ParameterSpec& spec : model.parameters()) {
      const bool around_one = spec.initializer == Initializer::kOne;
      parameters.push_back(draws(spec.size(), 10 + parameters.size(), .5, around_one ? 1 : 0));
    }
    int64_t n = 0;
    for (const int64_t leaf : kLeaves) n += leaf;
    label = draws(n, 4, 2);
    for (int64_t r = 0; r < n; ++r) {
      user.push_back(static_cast<int32_t>(random_bits(1, Purpose::kSynthetic, r) % kUsers));
      item.push_back(static_cast<int32_t>(random_bits(2, Purpose::kSynthetic, r) % kItems));
      key.push_back(dropout_key(5, 0, static_cast<uint32_t>(r)));
      rows.add(user.back(), item.back(), label[r]);
      reference::append_dropout(model.dropouts(), model.dropout_width(), key.back(), rows.dropout);
    }
  }
};

/// What a step makes of an engine: gradients one array a parameter.
struct Outcome {
  double loss = 0;
  std::vector<std::vector<float>> gradients;
  std::vector<std::vector<double>> moments;  // of each batch norm
  std::vector<float> predictions;
  bool operator==(const Outcome&) const = default;
};

Outcome run(const Layers& model, const Batch& batch, Engine& engine) {
  std::vector<float> dense;
  for (size_t a = 0; a < batch.parameters.size(); ++a)
    if (model.parameters()[a].kind == ParameterKind::kDense)
      dense.insert(dense.end(), batch.parameters[a].begin(), batch.parameters[a].end());
  engine.set_dense(dense);

  Outcome outcome;
  outcome.gradients = batch.parameters;
  // The first leaf of some rows overwrites what nobody may add to; running values have no gradient.
  std::vector<float> dense_gradient;
  for (const ParameterSpec& spec : model.parameters())
    if (spec.kind == ParameterKind::kDense)
      dense_gradient.insert(dense_gradient.end(), spec.size(), spec.trained ? std::nanf("") : 0.f);
  IdBatch ids[2];
  IdGradients id_gradients[2];
  std::vector<int32_t> numbers[2];
  std::vector<float> parts[2], part_gradients[2];
  for (const Side side : {Side::kUser, Side::kItem}) {
    const int s = side == Side::kItem;
    for (int32_t k = 0; k < (s ? kItems : kUsers); ++k) numbers[s].push_back(k);
    ids[s] = {.n = std::ssize(numbers[s]),
              .row = numbers[s].data(),
              .tables = {},
              .columns = batch.features.data()};
    id_gradients[s].dense = dense_gradient.data();
    id_gradients[s].adds = false;
    for (size_t a = 0; a < batch.parameters.size(); ++a) {
      if (model.parameters()[a].kind != (s ? ParameterKind::kItemTable : ParameterKind::kUserTable))
        continue;
      ids[s].tables.push_back(batch.parameters[a].data());
      id_gradients[s].tables.push_back(outcome.gradients[a].data());
    }
    parts[s].resize(ids[s].n * engine.part_width(side));
    part_gradients[s].resize(parts[s].size());
    engine.forward_ids(side, ids[s], parts[s].data());
  }
  const auto rows_at = [&](int64_t begin, int64_t n) {
    return RowBatch{.n = n,
                    .user_parts = parts[0].data(),
                    .item_parts = parts[1].data(),
                    .user = batch.user.data() + begin,
                    .item = batch.item.data() + begin,
                    .item_id = batch.item.data() + begin,
                    .columns = {nullptr, batch.features.data(), nullptr},
                    .target = batch.label.data() + begin,
                    .dropout_key = batch.key.data() + begin};
  };

  const auto n = std::ssize(batch.user);
  const int64_t item_width = engine.part_width(Side::kItem);
  std::vector<float> item_rows(n * item_width);
  std::vector<LeafMemory> memory(kLeaves.size());
  for (int64_t pass = 0; pass < engine.passes(); ++pass) {
    int64_t begin = 0;
    std::vector<double> statistics;
    for (size_t leaf = 0; leaf < kLeaves.size(); begin += kLeaves[leaf++]) {
      outcome.loss +=
          engine.train_pass(pass, rows_at(begin, kLeaves[leaf]), 1. / static_cast<double>(n),
                            {.user_parts = part_gradients[0].data(),
                             .item_parts = item_rows.data() + begin * item_width,
                             .dense = dense_gradient.data(),
                             .adds = leaf != 1},
                            memory[leaf]);
      statistics.insert(statistics.end(), memory[leaf].statistics.begin(),
                        memory[leaf].statistics.end());
    }
    if (pass + 1 == engine.passes()) break;
    const int64_t width = engine.norm_after(pass).width;
    if (pass < std::ssize(engine.batch_norms())) {
      outcome.moments.push_back(merge_moments(statistics, width));
      engine.set_statistics(pass, outcome.moments.back());
    } else {
      engine.set_statistics(pass, tree_sums(statistics, 1 + 2 * width));
    }
  }
  for (int64_t r = 0; r < n; ++r)
    for (int64_t c = 0; c < item_width; ++c)
      part_gradients[1][batch.item[r] * item_width + c] += item_rows[r * item_width + c];
  for (const Side side : {Side::kUser, Side::kItem}) {
    const int s = side == Side::kItem;
    engine.backward_ids(side, ids[s], part_gradients[s].data(), id_gradients[s]);
  }
  const float* from = dense_gradient.data();
  for (size_t a = 0; a < batch.parameters.size(); ++a) {
    if (model.parameters()[a].kind != ParameterKind::kDense) continue;
    std::copy_n(from, outcome.gradients[a].size(), outcome.gradients[a].begin());
    from += outcome.gradients[a].size();
  }
  outcome.predictions.resize(n);
  engine.predict_rows(rows_at(0, n), outcome.predictions.data());
  return outcome;
}

template <class Got>
void expect_near(const Got& got, const std::vector<double>& want, double largest,
                 const std::string& what) {
  ASSERT_EQ(std::ssize(got), std::ssize(want)) << what;
  for (size_t k = 0; k < want.size(); ++k)
    ASSERT_NEAR(got[k], want[k], kTolerance * largest) << what << " element " << k;
}

double largest_of(const std::vector<double>& values) {
  double largest = 0;
  for (const double value : values) largest = std::max(largest, std::abs(value));
  return largest;
}

using Case = std::tuple<NormedModel, Form>;
class BatchNormed : public testing::TestWithParam<Case> {
 protected:
  Layers model = std::get<0>(GetParam()).layers(kUsers, kItems, kFeatures);
  Form form = std::get<1>(GetParam());
  Batch batch{model};
};
INSTANTIATE_TEST_SUITE_P(Models, BatchNormed,
                         testing::Combine(testing::ValuesIn(reference::kNormedModels),
                                          testing::Values(Form::kRows, Form::kIds)),
                         [](const auto& test) {
                           return std::string(std::get<0>(test.param).name) +
                                  (std::get<1>(test.param) == Form::kIds ? "Ids" : "Rows");
                         });

TEST_P(BatchNormed, LeavesAddUpToAutogradOnTheWholeBatch) {
  const auto engine = make_fused_engine(model, {}, form, SimdLevel::kAvx2);
  const Outcome got = run(model, batch, *engine);
  LayersReference plain(model, batch.parameters, batch.features);
  // In evaluation, by the running values as they were given.
  const std::vector<double> predictions = plain.predict(batch.rows);
  expect_near(got.predictions, predictions, largest_of(predictions), "predictions");

  const LayersReference::Result want = plain.train(batch.rows);
  EXPECT_NEAR(got.loss, want.loss, kTolerance * want.loss);
  // The gradient of a bias before a batch norm is a sum that is 0: what is left of it is measured by the others.
  double largest_dense = 0;
  for (size_t a = 0; a < want.gradients.size(); ++a)
    if (model.parameters()[a].kind == ParameterKind::kDense)
      largest_dense =
          std::max(largest_dense, largest_of(LayersReference::to_vector(want.gradients[a])));
  for (size_t a = 0; a < want.gradients.size(); ++a) {
    const ParameterSpec& spec = model.parameters()[a];
    const std::vector<double> gradient = LayersReference::to_vector(want.gradients[a]);
    const bool table = spec.kind != ParameterKind::kDense;
    expect_near(got.gradients[a], gradient, table ? largest_of(gradient) : largest_dense,
                spec.name);
    if (spec.trained && !spec.name.ends_with("bias")) {
      EXPECT_GT(largest_of(gradient), 0) << spec.name;
    }
  }
}

TEST_P(BatchNormed, FindsTheMomentsOfTheWholeBatch) {
  const auto engine = make_fused_engine(model, {}, form, SimdLevel::kAvx2);
  const Outcome got = run(model, batch, *engine);
  LayersReference plain(model, batch.parameters, batch.features);
  plain.train(batch.rows);
  ASSERT_EQ(got.moments.size(), engine->batch_norms().size());
  for (size_t k = 0; k < got.moments.size(); ++k) {
    const BatchNorm& norm = engine->batch_norms()[k];
    const double rows = got.moments[k][0];
    EXPECT_EQ(rows, static_cast<double>(batch.user.size()));
    std::vector<double> mean, variance;
    for (int64_t c = 0; c < norm.width; ++c) {
      const auto running = [&](size_t a, double of_batch) {
        return norm.momentum * batch.parameters[a][c] + (1 - norm.momentum) * of_batch;
      };
      mean.push_back(running(norm.mean, got.moments[k][1 + c]));
      variance.push_back(running(norm.variance, got.moments[k][1 + norm.width + c] / rows));
    }
    const auto want_mean = LayersReference::to_vector(plain.values[norm.mean]),
               want_variance = LayersReference::to_vector(plain.values[norm.variance]);
    expect_near(mean, want_mean, largest_of(want_mean), "mean");
    expect_near(variance, want_variance, largest_of(want_variance), "variance");
    EXPECT_NE(want_variance, std::vector<double>(batch.parameters[norm.variance].begin(),
                                                 batch.parameters[norm.variance].end()));
  }
}

TEST_P(BatchNormed, HasTheSameBitsOnEverySimdLevelAndAsATeam) {
  const auto narrow = make_fused_engine(model, {}, form, SimdLevel::kAvx2);
  const auto want = run(model, batch, *narrow);
  EXPECT_EQ(run(model, batch, *make_fused_engine(model, {}, form, best_simd_level())), want);
  for (const fused::Kernels* kernels : {&kTeamKernels, &kBackwardsTeamKernels})
    EXPECT_EQ(run(model, batch, *make_fused_engine(model, {}, form, *kernels)), want);
}

TEST(BatchNorm, IsRefusedByLibtorchsEngineWhichComputesLeaves) {
  const Layers model = reference::normed_deep(kUsers, kItems, kFeatures);
  EXPECT_THROW(make_engine({model, {}}, {.kind = EngineKind::kTorch}), UserError);
}

}  // namespace
}  // namespace kt
