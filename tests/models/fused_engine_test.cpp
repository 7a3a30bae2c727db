#include "models/fused_engine.h"

#include <gtest/gtest.h>

#include <cmath>

#include "launch/random.h"
#include "models/ncf.h"
#include "models/registry.h"

namespace kt {
namespace {

// Float32 sums in two orders: the largest difference, as a part of the array's largest value.
constexpr double kTolerance = 2e-5;

constexpr int64_t kUsers = 9, kItems = 23, kRows = 150, kFeatures = 5;

std::vector<float> draws(int64_t n, uint64_t seed, float scale) {
  std::vector<float> values(n);
  for (int64_t k = 0; k < n; ++k)
    values[k] = scale * static_cast<float>(
                            2 * to_uniform(random_bits(seed, Purpose::kSynthetic, k)) - 1);
  return values;
}

Layers small_ncf() { return ncf({kUsers, kItems, kFeatures}); }

Layers ncf_without_content() { return ncf({kUsers, kItems, 0}); }

// Odd widths, every activation, normalised towers and a scaled output.
Layers towers() {
  Layers m;
  int user = m.tanh(m.dense("user1", m.user_table("user", kUsers, 10), 21));
  user = m.l2_normalize(m.dense("user2", user, 19));
  int item = m.concat({m.item_table("item", kItems, 6), m.item_features(kFeatures)});
  item = m.sigmoid(m.dense("item1", item, 37));
  item = m.l2_normalize(m.dense("item2", item, 19));
  m.scale(m.sigmoid(m.dot(user, item)), 5);
  return m;
}

// One layer read by several: a dot, a product, a copy; two dropouts; biases as tables of width 1.
Layers shared() {
  Layers m;
  const int user = m.user_table("user", kUsers, 24), item = m.item_table("item", kItems, 24);
  const int joined = m.tanh(m.concat({user, item}));
  const int x = m.dropout(m.relu(m.dense("deep1", joined, 40)), .4);
  const int y = m.dropout(m.tanh(m.dense("deep2", m.concat({x, user}), 17)), .4);
  const int parts = m.concat({y, m.dot(user, item), m.user_table("user_bias", kUsers, 1),
                              m.item_table("item_bias", kItems, 1), m.l2_normalize(x)});
  m.dense("output", parts, 1);
  return m;
}

// A sum of two sides and nothing else: the rows are a gather.
Layers linear() {
  Layers m;
  m.dense("output", m.concat({m.user_table("user", kUsers, 3), m.item_table("item", kItems, 4)}), 1);
  return m;
}

struct Model {
  const char* name;
  Layers (*layers)();
};
const Model kModels[] = {{"Ncf", small_ncf},
                         {"NcfWithoutContent", ncf_without_content},
                         {"Towers", towers},
                         {"Shared", shared},
                         {"Linear", linear}};

/// What a step would make of an engine over one leaf.
struct Outcome {
  double loss = 0;
  std::vector<std::vector<float>> tables;  // gradients
  std::vector<float> dense;
  std::vector<float> predictions;
  bool operator==(const Outcome&) const = default;
};

Outcome run(const Layers& model, Engine& engine) {
  std::vector<std::vector<float>> tables[2], gradients[2];
  std::vector<float> dense;
  uint64_t seed = 10;
  for (const ParameterSpec& spec : model.parameters()) {
    const std::vector<float> values = draws(spec.size(), ++seed, .5);
    if (spec.kind == ParameterKind::kDense) {
      dense.insert(dense.end(), values.begin(), values.end());
      continue;
    }
    const bool item = spec.kind == ParameterKind::kItemTable;
    tables[item].push_back(values);
    gradients[item].emplace_back(values.size());
  }
  engine.set_dense(dense);
  const std::vector<float> features = draws(kItems * kFeatures, 3, 2), label = draws(kRows, 4, 2);

  Outcome outcome;
  outcome.dense.resize(dense.size());
  std::vector<int32_t> ids[2];
  for (int32_t k = 0; k < kUsers; ++k) ids[0].push_back(kUsers - 1 - k);
  for (int32_t k = 0; k < kItems; ++k) ids[1].push_back(k * 7 % kItems);
  std::vector<float> parts[2], part_gradients[2];
  IdBatch batches[2];
  for (const Side side : {Side::kUser, Side::kItem}) {
    const int s = side == Side::kItem;
    IdBatch& batch = batches[s];
    batch.n = std::ssize(ids[s]);
    batch.row = ids[s].data();
    batch.features = features.data();
    for (const auto& table : tables[s]) batch.tables.push_back(table.data());
    parts[s].resize(batch.n * engine.part_width(side));
    part_gradients[s].resize(parts[s].size());
    engine.forward_ids(side, batch, parts[s].data());
  }

  std::vector<int32_t> user, item, item_id;
  std::vector<uint32_t> key;
  for (int64_t r = 0; r < kRows; ++r) {
    user.push_back(static_cast<int32_t>(random_bits(1, Purpose::kSynthetic, r) % kUsers));
    item.push_back(static_cast<int32_t>(random_bits(2, Purpose::kSynthetic, r) % kItems));
    item_id.push_back(ids[1][item.back()]);
    key.push_back(dropout_key(5, 0, static_cast<uint32_t>(r)));
  }
  const RowBatch rows{.n = kRows,
                      .user_parts = parts[0].data(),
                      .item_parts = parts[1].data(),
                      .user = user.data(),
                      .item = item.data(),
                      .item_id = item_id.data(),
                      .features = features.data(),
                      .label = label.data(),
                      .dropout_key = key.data()};
  const int64_t item_width = engine.part_width(Side::kItem);
  std::vector<float> item_rows(kRows * item_width);
  outcome.loss = engine.train_rows(rows, .01,
                                   {.user_parts = part_gradients[0].data(),
                                    .item_parts = item_rows.data(),
                                    .dense = outcome.dense.data()});
  for (int64_t r = 0; r < kRows; ++r)
    for (int64_t c = 0; c < item_width; ++c)
      part_gradients[1][item[r] * item_width + c] += item_rows[r * item_width + c];
  for (const Side side : {Side::kUser, Side::kItem}) {
    const int s = side == Side::kItem;
    IdGradients to{.tables = {}, .dense = outcome.dense.data()};
    for (auto& table : gradients[s]) to.tables.push_back(table.data());
    engine.backward_ids(side, batches[s], part_gradients[s].data(), to);
    for (const auto& table : gradients[s]) outcome.tables.push_back(table);
  }
  outcome.predictions.resize(kRows);
  engine.predict_rows(rows, outcome.predictions.data());
  return outcome;
}

void expect_near(const std::vector<float>& got, const std::vector<float>& want,
                 const std::string& what) {
  ASSERT_EQ(got.size(), want.size()) << what;
  double largest = 0;
  for (const float value : want) largest = std::max(largest, std::abs(static_cast<double>(value)));
  EXPECT_GT(largest, 0) << what;
  for (size_t k = 0; k < got.size(); ++k)
    ASSERT_NEAR(got[k], want[k], kTolerance * largest) << what << " element " << k;
}

using Case = std::tuple<Model, Form>;
class FusedEngine : public testing::TestWithParam<Case> {
 protected:
  Layers model = std::get<0>(GetParam()).layers();
  Form form = std::get<1>(GetParam());
};
INSTANTIATE_TEST_SUITE_P(Models, FusedEngine,
                         testing::Combine(testing::ValuesIn(kModels),
                                          testing::Values(Form::kRows, Form::kIds)),
                         [](const auto& test) {
                           return std::string(std::get<0>(test.param).name) +
                                  (std::get<1>(test.param) == Form::kIds ? "Ids" : "Rows");
                         });

TEST_P(FusedEngine, ComputesWhatAutogradDoes) {
  const auto engine = make_fused_engine(model, form, SimdLevel::kAvx2);
  const auto torch = make_engine(model, {.kind = EngineKind::kTorch});
  const Outcome got = run(model, *engine), want = run(model, *torch);
  EXPECT_NEAR(got.loss, want.loss, kTolerance * want.loss);
  expect_near(got.predictions, want.predictions, "predictions");
  ASSERT_EQ(got.tables.size(), want.tables.size());
  for (size_t t = 0; t < got.tables.size(); ++t)
    expect_near(got.tables[t], want.tables[t], "table " + std::to_string(t));
  int64_t at = 0;
  for (const ParameterSpec& spec : model.parameters()) {
    if (spec.kind != ParameterKind::kDense) continue;
    const auto part = [&](const std::vector<float>& all) {
      return std::vector<float>(all.begin() + at, all.begin() + at + spec.size());
    };
    expect_near(part(got.dense), part(want.dense), spec.name);
    at += spec.size();
  }
}

TEST_P(FusedEngine, HasTheSameBitsOnEverySimdLevel) {
  if (best_simd_level() == SimdLevel::kAvx2) return;  // this machine has one level
  const auto narrow = make_fused_engine(model, form, SimdLevel::kAvx2);
  const auto wide = make_fused_engine(model, form, SimdLevel::kAvx512);
  EXPECT_EQ(run(model, *narrow), run(model, *wide));
}

}  // namespace
}  // namespace kt
