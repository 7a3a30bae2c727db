#include "models/fused/fused_engine.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "launch/base/flush_small.h"
#include "launch/base/random.h"
#include "models/graph/watch_time.h"
#include "models/systems/registry.h"
#include "tests/support/team_on_host.h"

namespace kt {
namespace {

// Float32 sums in two orders: the largest difference, as a part of the array's largest value.
constexpr double kTolerance = 2e-5;

constexpr int64_t kUsers = 9, kItems = 23, kRows = 150, kColumns = 5, kCodes = 4;

std::vector<float> draws(int64_t n, uint64_t seed, float scale) {
  std::vector<float> values(n);
  for (int64_t k = 0; k < n; ++k)
    values[k] =
        scale * static_cast<float>(2 * to_uniform(random_bits(seed, Purpose::kSynthetic, k)) - 1);
  return values;
}

Layers small_ncf() {
  return make_default_system("ncf", {.users = kUsers, .items = kItems, .columns = {0, kColumns, 0}})
      .graph;
}

Layers ncf_without_content() {
  return make_default_system("ncf", {.users = kUsers, .items = kItems}).graph;
}

// Every operation on two inputs, embeddings of codes, columns of all sides, three rates of dropout.
Layers joined() {
  Layers m;
  const int user = m.columns(Side::kUser, 0, 3), item = m.columns(Side::kItem, 0, kColumns);
  const int codes =
      m.lookup("codes", m.columns(Side::kItem, 1, 4), 0, {kCodes, kCodes, kCodes}, 5, .3);
  const int users = m.dropout(
      m.relu(m.dense("users", m.concat({user, m.user_table("user", kUsers, 4, .2)}), 18)), .1);
  const int items =
      m.bias("shift", m.multiply(m.tanh(m.dense("items", codes, 18)), m.dense("gate", item, 18)));
  const int both = m.add(m.multiply(users, items), m.dropout(m.add(users, users), .5));
  const int rows = m.dropout(m.relu(m.dense("rows", m.columns(Side::kRow, 0, 2), 7)), .3);
  const int x = m.dense("output", m.concat({both, rows}), 1);
  m.bias("last", m.add(x, m.item_table("item_bias", kItems, 1, .2)));
  return m;
}

// What categorical models are made of: vectors of codes, of a bag and of ids side by side, their sum and their dots, read
// by several; products without a bias.
Layers fields() {
  Layers m;
  const int codes =
      m.lookup("codes", m.columns(Side::kItem, 1, 3), 0, {kCodes, kCodes, kCodes}, 5, .3);
  const int bag = m.bag("bag", m.columns(Side::kItem, 0, kColumns), 5, .3);
  const int user = m.user_table("user", kUsers, 50, .2);
  const int all = m.concat({codes, bag, user});
  const int dots = m.concat({m.pair_dots(all, 5), m.pair_dots(all, 35)}), sum = m.fold(all, 5);
  const int crossed = m.multiply(all, m.dense("high", m.product("low", all, 7), 70));
  const int of_codes = m.relu(m.pair_dots(codes, 5));
  const int x = m.concat({m.dropout(dots, .2), m.add(crossed, all), of_codes, m.dot(sum, sum),
                          m.fold(m.tanh(codes), 3)});
  m.add(m.product("last", m.relu(m.dense("deep", x, 18)), 1), m.fold(sum, 1));
  return m;
}

// Nothing but columns of one side.
Layers of_users() {
  Layers m;
  m.dense("output", m.relu(m.dense("hidden", m.columns(Side::kUser, 0, 3), 6)), 1);
  return m;
}
// Nothing but columns of rows.
Layers of_rows() {
  Layers m;
  m.dense("output", m.sigmoid(m.dense("hidden", m.columns(Side::kRow, 0, 2), 6)), 1);
  return m;
}

// Odd widths, every activation, normalised towers and a scaled output.
Layers towers() {
  Layers m;
  int user = m.tanh(m.dense("user1", m.user_table("user", kUsers, 10, .2), 21));
  user = m.l2_normalize(m.dense("user2", user, 19));
  int item = m.concat({m.item_table("item", kItems, 6, .2), m.columns(Side::kItem, 0, kColumns)});
  item = m.sigmoid(m.dense("item1", item, 37));
  item = m.l2_normalize(m.dense("item2", item, 19));
  m.scale(m.sigmoid(m.dot(user, item)), 5);
  return m;
}

// One layer read by several: a dot, a product, a copy; two dropouts; biases as tables of width 1.
Layers shared() {
  Layers m;
  const int user = m.user_table("user", kUsers, 24, .2),
            item = m.item_table("item", kItems, 24, .2);
  const int joined = m.tanh(m.concat({user, item}));
  const int x = m.dropout(m.relu(m.dense("deep1", joined, 40)), .4);
  const int y = m.dropout(m.tanh(m.dense("deep2", m.concat({x, user}), 17)), .4);
  const int parts = m.concat({y, m.dot(user, item), m.user_table("user_bias", kUsers, 1, .2),
                              m.item_table("item_bias", kItems, 1, .2), m.l2_normalize(x)});
  m.dense("output", parts, 1);
  return m;
}

// A sum of two sides and nothing else: the rows are a gather.
Layers linear() {
  Layers m;
  m.dense("output",
          m.concat({m.user_table("user", kUsers, 3, .2), m.item_table("item", kItems, 4, .2)}), 1);
  return m;
}

struct Model {
  const char* name;
  Layers (*layers)();
};
const Model kModels[] = {{"Ncf", small_ncf}, {"NcfWithoutContent", ncf_without_content},
                         {"Towers", towers}, {"Shared", shared},
                         {"Linear", linear}, {"Joined", joined},
                         {"Fields", fields}, {"OfUsers", of_users},
                         {"OfRows", of_rows}};

/// Weights and rows of a leaf for a model. What an engine is given, whole or in pieces.
struct Leaf {
  std::vector<std::vector<float>> tables[2];  // of users, of items
  std::vector<float> dense;
  std::vector<float> columns[kSides], target = draws(kRows, 4, 2);
  std::vector<int32_t> ids[2];               // rows of the tables, in no order
  std::vector<int32_t> user, item, item_id;  // [kRows]
  std::vector<uint32_t> key;                 // [kRows]
  int64_t row_columns = 0;

  explicit Leaf(const Layers& model) {
    for (const Side side : {Side::kUser, Side::kItem, Side::kRow}) {
      const int64_t n = side == Side::kUser ? kUsers : side == Side::kItem ? kItems : kRows;
      const int64_t count = model.column_count(side);
      columns[static_cast<size_t>(side)] = draws(n * count, 3 + static_cast<uint64_t>(side), 2);
    }
    row_columns = model.column_count(Side::kRow);
    // Codes where a model looks some up: the columns 1 to 3 of items.
    for (const Layer& layer : model.layers())
      for (int64_t k = 0; layer.kind == LayerKind::kLookup && k < kItems; ++k)
        for (int64_t f = 1; f <= 3; ++f)
          columns[1][k * kColumns + f] = static_cast<float>((k + f * k) % kCodes);
    uint64_t seed = 10;
    for (const ParameterSpec& spec : model.parameters()) {
      const std::vector<float> values = draws(spec.size(), ++seed, .5);
      if (spec.kind == ParameterKind::kDense)
        dense.insert(dense.end(), values.begin(), values.end());
      else
        tables[spec.kind == ParameterKind::kItemTable].push_back(values);
    }
    for (int32_t k = 0; k < kUsers; ++k) ids[0].push_back(kUsers - 1 - k);
    for (int32_t k = 0; k < kItems; ++k) ids[1].push_back(k * 7 % kItems);
    for (int64_t r = 0; r < kRows; ++r) {
      user.push_back(static_cast<int32_t>(random_bits(1, Purpose::kSynthetic, r) % kUsers));
      item.push_back(static_cast<int32_t>(random_bits(2, Purpose::kSynthetic, r) % kItems));
      item_id.push_back(item.back());
      key.push_back(dropout_key(5, 0, static_cast<uint32_t>(r)));
    }
  }

  /// Ids [begin, begin + n) of a side.
  IdBatch id_batch(Side side, int64_t begin, int64_t n) const {
    const int s = side == Side::kItem;
    IdBatch batch{.n = n, .row = ids[s].data() + begin, .tables = {}, .columns = columns[s].data()};
    for (const auto& table : tables[s]) batch.tables.push_back(table.data());
    return batch;
  }
  IdBatch id_batch(Side side) const {
    return id_batch(side, 0, std::ssize(ids[side == Side::kItem]));
  }

  /// Of all users, then of all items.
  std::array<std::vector<float>, 2> parts(const Engine& engine) const {
    return {parts(engine, Side::kUser), parts(engine, Side::kItem)};
  }
  std::vector<float> parts(const Engine& engine, Side side) const {
    const IdBatch batch = id_batch(side);
    std::vector<float> parts(batch.n * engine.part_width(side));
    engine.forward_ids(side, batch, parts.data());
    return parts;
  }

  /// Rows [begin, begin + n).
  RowBatch row_batch(const std::vector<float>& user_parts, const std::vector<float>& item_parts,
                     int64_t begin, int64_t n) const {
    return {
        .n = n,
        .user_parts = user_parts.data(),
        .item_parts = item_parts.data(),
        .user = user.data() + begin,
        .item = item.data() + begin,
        .item_id = item_id.data() + begin,
        .columns = {columns[0].data(), columns[1].data(), columns[2].data() + begin * row_columns},
        .target = target.data() + begin,
        .dropout_key = key.data() + begin};
  }
};

/// What a step would make of an engine over one leaf.
struct Outcome {
  double loss = 0;
  std::vector<std::vector<float>> tables;  // gradients
  std::vector<float> dense;
  std::vector<float> predictions;
  bool operator==(const Outcome&) const = default;
};

/// Dense gradients begin as what no engine may leave there, or with zeros that are added to. Users' parts do not lie as users do.
Outcome run(const Layers& model, Engine& engine, float weight = 1, bool adds = false) {
  Leaf leaf(model);
  for (auto& tables : leaf.tables)
    for (auto& table : tables)
      for (float& x : table) x *= weight;
  for (float& x : leaf.dense) x *= weight;
  engine.set_dense(leaf.dense);
  Outcome outcome;
  outcome.dense.assign(leaf.dense.size(), adds ? 0.f : std::nanf(""));
  std::vector<int32_t> place, part_of_row;
  for (int32_t k = 0; k < kUsers; ++k) place.push_back(k * 2 % kUsers);
  for (const int32_t user : leaf.user)
    part_of_row.push_back(place[std::ranges::find(leaf.ids[0], user) - leaf.ids[0].begin()]);
  IdBatch users = leaf.id_batch(Side::kUser);
  users.part = place.data();
  std::vector<float> parts[2] = {{}, leaf.parts(engine, Side::kItem)};
  parts[0].resize(kUsers * engine.part_width(Side::kUser));
  engine.forward_ids(Side::kUser, users, parts[0].data());
  std::vector<float> part_gradients[2] = {std::vector<float>(parts[0].size()),
                                          std::vector<float>(parts[1].size())};
  RowBatch rows = leaf.row_batch(parts[0], parts[1], 0, kRows);
  rows.user = part_of_row.data();
  rows.user_id = leaf.user.data();
  const int64_t item_width = engine.part_width(Side::kItem);
  std::vector<float> item_rows(kRows * item_width);
  outcome.loss = engine.train_rows(rows, .01,
                                   {.user_parts = part_gradients[0].data(),
                                    .item_parts = item_rows.data(),
                                    .dense = outcome.dense.data(),
                                    .adds = adds});
  const FlushSmall flush;  // as sums over ranks do
  for (int64_t r = 0; r < kRows; ++r)
    for (int64_t c = 0; c < item_width; ++c)
      part_gradients[1][leaf.item[r] * item_width + c] += item_rows[r * item_width + c];
  for (const Side side : {Side::kUser, Side::kItem}) {
    const int s = side == Side::kItem;
    std::vector<std::vector<float>> gradients = leaf.tables[s];
    IdGradients to{.tables = {}, .dense = outcome.dense.data(), .adds = adds};
    for (auto& table : gradients) to.tables.push_back(table.data());
    engine.backward_ids(side, s ? leaf.id_batch(side) : users, part_gradients[s].data(), to);
    for (const auto& table : gradients) outcome.tables.push_back(table);
  }
  outcome.predictions.resize(kRows * engine.output_width());
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

/// The forms of the kernels that this machine can run; the narrowest first.
std::vector<const fused::Kernels*> all_kernels() {
  std::vector<const fused::Kernels*> all{&fused::kAvx2Kernels, &kTeamKernels,
                                         &kBackwardsTeamKernels};
  if (best_simd_level() == SimdLevel::kAvx512) all.push_back(&fused::kAvx512Kernels);
  return all;
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
  const auto engine = make_fused_engine(model, {}, form, SimdLevel::kAvx2);
  const auto torch = make_engine({model, {}}, {.kind = EngineKind::kTorch});
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

TEST_P(FusedEngine, TrainsOnEveryLoss) {
  for (const Loss loss : {Loss::kBce, Loss::kHuber}) {
    const Objective objective{.loss = loss, .delta = .7};
    const auto torch = make_engine({model, objective}, {.kind = EngineKind::kTorch});
    const Outcome want = run(model, *torch);
    Outcome narrow;
    for (const fused::Kernels* kernels : all_kernels()) {
      const Outcome got = run(model, *make_fused_engine(model, objective, form, *kernels));
      EXPECT_NEAR(got.loss, want.loss, kTolerance * std::abs(want.loss));
      expect_near(got.dense, want.dense, "dense");
      if (kernels == &fused::kAvx2Kernels)
        narrow = got;
      else
        EXPECT_EQ(got, narrow);
    }
  }
}

/// Every kernel trains as libtorch's engine does, all of them with the same bits.
void expect_training_of_libtorch(const Layers& model, const Objective& objective, Form form) {
  const Outcome want = run(model, *make_engine({model, objective}, {.kind = EngineKind::kTorch}));
  Outcome narrow;
  for (const fused::Kernels* kernels : all_kernels()) {
    const Outcome got = run(model, *make_fused_engine(model, objective, form, *kernels));
    EXPECT_NEAR(got.loss, want.loss, kTolerance * std::abs(want.loss));
    expect_near(got.predictions, want.predictions, "predictions");
    expect_near(got.dense, want.dense, "dense");
    for (size_t t = 0; t < got.tables.size(); ++t)
      expect_near(got.tables[t], want.tables[t], "table " + std::to_string(t));
    if (kernels == &fused::kAvx2Kernels)
      narrow = got;
    else
      EXPECT_EQ(got, narrow);
  }
}

// Groups of 2, of 3 (which blocks of 64 rows would cut), and of 75, longer than a block.
TEST_P(FusedEngine, TrainsGroupsOfRows) {
  for (const auto& [loss, negatives] : {std::pair(Loss::kSoftmax, 1),
                                        {Loss::kSoftmax, 2},
                                        {Loss::kSoftmax, 74},
                                        {Loss::kLambdaRank, 4},
                                        {Loss::kListNet, 2},
                                        {Loss::kApproxNdcg, 74}})
    expect_training_of_libtorch(
        model, {.loss = loss, .negative_count = negatives, .temperature = .8}, form);
}

// What a hidden layer makes of two sides, in so many outputs: more than the lanes of a vector, and one.
Layers with_outputs(int64_t outputs) {
  Layers m;
  const int both =
      m.concat({m.user_table("user", kUsers, 3, .2), m.item_table("item", kItems, 4, .2)});
  m.dense("output", m.relu(m.dense("hidden", both, 24)), outputs);
  return m;
}

TEST(FusedEngineOfOutputs, TrainsOnAllOutputsOfARow) {
  constexpr int64_t kLevels = 19;
  std::vector<float> levels;
  for (int64_t k = 0; k < 2 * kLevels; ++k)
    levels.push_back(k < kLevels ? .1f * static_cast<float>(k + 1) - .9f
                                 : .3f * static_cast<float>(kLevels - k));
  const Objective objectives[] = {
      {.loss = Loss::kOdds},
      {.loss = Loss::kLevels,
       .outputs = kLevels,
       .error_weight = .8,
       .shape_weight = .3,
       .levels = levels.data()},
      {.loss = Loss::kQuantiles, .outputs = 21},
      {.loss = Loss::kMixture, .outputs = outputs_of(5), .error_weight = .7, .shape_weight = .2}};
  for (const Objective& objective : objectives)
    for (const Form form : {Form::kRows, Form::kIds})
      expect_training_of_libtorch(with_outputs(objective.outputs), objective, form);
}

TEST_P(FusedEngine, HasTheSameBitsOnEverySimdLevelAndAsATeam) {
  const Outcome narrow = run(model, *make_fused_engine(model, {}, form, SimdLevel::kAvx2));
  for (const fused::Kernels* kernels : all_kernels())
    EXPECT_EQ(run(model, *make_fused_engine(model, {}, form, *kernels)), narrow);
}

TEST_P(FusedEngine, CountsNumbersTooSmallForAFullMantissaAsZeroAlike) {
  for (const float weight : {1e-12f, 1e-19f, 1e-37f}) {
    const Outcome narrow =
        run(model, *make_fused_engine(model, {}, form, SimdLevel::kAvx2), weight);
    for (const std::vector<float>& table : narrow.tables)
      for (const float gradient : table) EXPECT_NE(std::fpclassify(gradient), FP_SUBNORMAL);
    for (const fused::Kernels* kernels : all_kernels())
      EXPECT_EQ(run(model, *make_fused_engine(model, {}, form, *kernels), weight), narrow);
  }
}

// Cuts of a leaf: ones, a block and its neighbours.
const std::vector<int64_t> kPieces{
    1, 2, 7, fused::kBlockRows - 1, fused::kBlockRows, fused::kBlockRows + 1, kRows};

TEST_P(FusedEngine, APartHasTheBitsOfItsIdAlone) {
  const Leaf leaf(model);
  for (const fused::Kernels* kernels : all_kernels()) {
    const auto engine = make_fused_engine(model, {}, form, *kernels);
    engine->set_dense(leaf.dense);
    for (const Side side : {Side::kUser, Side::kItem}) {
      if (engine->part_width(side) == 0) continue;
      const int64_t n = std::ssize(leaf.ids[side == Side::kItem]);
      const std::vector<float> whole = leaf.parts(*engine, side);
      for (const int64_t piece : kPieces) {
        std::vector<float> parts(whole.size(), 7.f);
        for (int64_t begin = 0; begin < n; begin += piece)
          engine->forward_ids(side, leaf.id_batch(side, begin, std::min(piece, n - begin)),
                              parts.data());
        EXPECT_EQ(parts, whole) << "in pieces of " << piece;
      }
    }
  }
}

TEST_P(FusedEngine, APredictionHasTheBitsOfItsRowAlone) {
  const Leaf leaf(model);
  for (const fused::Kernels* kernels : all_kernels()) {
    const auto engine = make_fused_engine(model, {}, form, *kernels);
    engine->set_dense(leaf.dense);
    const auto [users, items] = leaf.parts(*engine);
    std::vector<float> whole(kRows);
    engine->predict_rows(leaf.row_batch(users, items, 0, kRows), whole.data());
    for (const int64_t piece : kPieces) {
      std::vector<float> predictions(kRows, 7.f);
      for (int64_t begin = 0; begin < kRows; begin += piece)
        engine->predict_rows(leaf.row_batch(users, items, begin, std::min(piece, kRows - begin)),
                             predictions.data() + begin);
      EXPECT_EQ(predictions, whole) << "in pieces of " << piece;
    }
  }
}

// A row's gradient is its own, a user's the sum of its rows in order, and a table's row that of its part: the same
// bits however the calls are cut. Sums over rows (dense gradients, the loss) are near.
TEST_P(FusedEngine, GradientsDoNotKnowHowALeafIsCut) {
  const Leaf leaf(model);
  const auto engine = make_fused_engine(model, {}, form, best_simd_level());
  engine->set_dense(leaf.dense);
  const auto parts = leaf.parts(*engine);
  struct Gradients {
    double loss = 0;
    std::vector<float> users, items, dense;
    std::vector<std::vector<float>> tables;
  };
  const auto in_pieces_of = [&](int64_t piece) {
    Gradients got;
    got.users.assign(parts[0].size(), 0.f);
    got.items.assign(kRows * engine->part_width(Side::kItem), 7.f);  // overwritten
    got.dense.assign(leaf.dense.size(), 0.f);
    for (int64_t begin = 0; begin < kRows; begin += piece)
      got.loss += engine->train_rows(
          leaf.row_batch(parts[0], parts[1], begin, std::min(piece, kRows - begin)), .01,
          {.user_parts = got.users.data(),
           .item_parts = got.items.data() + begin * engine->part_width(Side::kItem),
           .dense = got.dense.data()});
    for (const Side side : {Side::kUser, Side::kItem}) {
      const int s = side == Side::kItem;
      const std::vector<float> of_parts = draws(std::ssize(parts[s]), 77, 1);
      const int64_t n = std::ssize(leaf.ids[s]);
      std::vector<std::vector<float>> gradients = leaf.tables[s];  // overwritten
      IdGradients to{.tables = {}, .dense = got.dense.data()};
      for (auto& table : gradients) to.tables.push_back(table.data());
      for (int64_t begin = 0; begin < n; begin += piece)
        engine->backward_ids(side, leaf.id_batch(side, begin, std::min(piece, n - begin)),
                             of_parts.data(), to);
      for (const auto& table : gradients) got.tables.push_back(table);
    }
    return got;
  };
  const Gradients whole = in_pieces_of(kRows);
  for (const int64_t piece : kPieces) {
    const Gradients got = in_pieces_of(piece);
    EXPECT_EQ(got.users, whole.users) << "in pieces of " << piece;
    EXPECT_EQ(got.items, whole.items) << "in pieces of " << piece;
    EXPECT_EQ(got.tables, whole.tables) << "in pieces of " << piece;
    EXPECT_NEAR(got.loss, whole.loss, kTolerance * whole.loss);
    expect_near(got.dense, whole.dense, "dense");
  }
}

TEST_P(FusedEngine, GradientsOfDenseArraysAreAddedToWhatIsThere) {
  const Leaf leaf(model);
  const auto engine = make_fused_engine(model, {}, form, best_simd_level());
  engine->set_dense(leaf.dense);
  const auto [users, items] = leaf.parts(*engine);
  std::vector<float> user_rows(users.size()), item_rows(kRows * engine->part_width(Side::kItem));
  const auto twice = [&](std::vector<float> dense) {
    for (int k = 0; k < 2; ++k)
      engine->train_rows(
          leaf.row_batch(users, items, 0, kRows), .01,
          {.user_parts = user_rows.data(), .item_parts = item_rows.data(), .dense = dense.data()});
    return dense;
  };
  std::vector<float> once(leaf.dense.size());
  engine->train_rows(
      leaf.row_batch(users, items, 0, kRows), .01,
      {.user_parts = user_rows.data(), .item_parts = item_rows.data(), .dense = once.data()});
  for (float& value : once) value = value * 2 + .5f;
  expect_near(twice(std::vector<float>(leaf.dense.size(), .5f)), once, "dense");
}

TEST_P(FusedEngine, GradientsOfDenseArraysThatAreOverwrittenAreThoseAddedToZeros) {
  for (const fused::Kernels* kernels : all_kernels()) {
    const auto engine = make_fused_engine(model, {}, form, *kernels);
    EXPECT_EQ(run(model, *engine, 1, true), run(model, *engine, 1, false));
  }
}

// As where a leaf has rows and its rank owns none of the items of a step.
TEST_P(FusedEngine, NoIdsOverwriteTheirDenseGradientsWithZeros) {
  const Leaf leaf(model);
  for (const fused::Kernels* kernels : all_kernels()) {
    const auto engine = make_fused_engine(model, {}, form, *kernels);
    engine->set_dense(leaf.dense);
    const auto [users, items] = leaf.parts(*engine);
    std::vector<float> user_rows(users.size()), item_rows(kRows * engine->part_width(Side::kItem));
    const auto of_rows_alone = [&](float before, bool adds) {
      std::vector<float> dense(leaf.dense.size(), before);
      engine->train_rows(leaf.row_batch(users, items, 0, kRows), .01,
                         {.user_parts = user_rows.data(),
                          .item_parts = item_rows.data(),
                          .dense = dense.data(),
                          .adds = adds});
      for (const Side side : {Side::kUser, Side::kItem}) {
        std::vector<std::vector<float>> tables = leaf.tables[side == Side::kItem];
        IdGradients to{.tables = {}, .dense = dense.data(), .adds = adds};
        for (auto& table : tables) to.tables.push_back(table.data());
        engine->backward_ids(side, leaf.id_batch(side, 0, 0), nullptr, to);
      }
      return dense;
    };
    EXPECT_EQ(of_rows_alone(std::nanf(""), false), of_rows_alone(0, true));
  }
}

// Weights that have diverged must show: no activation may turn them into numbers again.
TEST_P(FusedEngine, AWeightThatIsNoNumberShowsInLossAndPredictions) {
  for (const fused::Kernels* kernels : all_kernels()) {
    for (const bool in_item : {false, true}) {
      Leaf leaf(model);
      if (leaf.tables[in_item].empty()) continue;
      // Of one id of the side, in the columns of its first table.
      std::vector<float>& table = leaf.tables[in_item].front();
      const auto cols = std::ssize(table) / (in_item ? kItems : kUsers);
      std::fill_n(table.begin() + 3 * cols, cols, std::nanf(""));
      const auto engine = make_fused_engine(model, {}, form, *kernels);
      engine->set_dense(leaf.dense);
      const auto [users, items] = leaf.parts(*engine);
      const RowBatch rows = leaf.row_batch(users, items, 0, kRows);
      std::vector<float> predictions(kRows);
      engine->predict_rows(rows, predictions.data());
      int64_t odd = 0;
      for (int64_t r = 0; r < kRows; ++r) {
        const int32_t id = in_item ? leaf.item[r] : leaf.user[r];
        EXPECT_EQ(std::isfinite(predictions[r]), id != 3) << r;
        odd += id == 3;
      }
      EXPECT_GT(odd, 0);
      std::vector<float> user_rows(users.size()),
          item_rows(kRows * engine->part_width(Side::kItem)), dense(leaf.dense.size());
      EXPECT_FALSE(std::isfinite(engine->train_rows(rows, .01,
                                                    {.user_parts = user_rows.data(),
                                                     .item_parts = item_rows.data(),
                                                     .dense = dense.data()})));
    }
  }
}

TEST_P(FusedEngine, NoRowsAndNoIdsAreNothing) {
  const Leaf leaf(model);
  const auto engine = make_fused_engine(model, {}, form, best_simd_level());
  engine->set_dense(leaf.dense);
  std::vector<float> dense(leaf.dense.size(), 3.f);
  const std::vector<float> none;
  EXPECT_EQ(
      engine->train_rows(leaf.row_batch(none, none, 0, 0), 1,
                         {.user_parts = nullptr, .item_parts = nullptr, .dense = dense.data()}),
      0);
  engine->predict_rows(leaf.row_batch(none, none, 0, 0), nullptr);
  for (const Side side : {Side::kUser, Side::kItem}) {
    engine->forward_ids(side, leaf.id_batch(side, 0, 0), nullptr);
    std::vector<std::vector<float>> tables = leaf.tables[side == Side::kItem];
    IdGradients to{.tables = {}, .dense = dense.data()};
    for (auto& table : tables) to.tables.push_back(table.data());
    engine->backward_ids(side, leaf.id_batch(side, 0, 0), nullptr, to);
    EXPECT_EQ(tables, leaf.tables[side == Side::kItem]);
  }
  EXPECT_EQ(dense, std::vector<float>(leaf.dense.size(), 3.f));
}

}  // namespace
}  // namespace kt
