// The published arithmetic of dlrm, deepfm and dcn_v2, with weights told by name.
#include <gtest/gtest.h>

#include <map>

#include "models/fused/fused_engine.h"
#include "models/systems/registry.h"

namespace kt {
namespace {

using Weights = std::map<std::string, std::vector<float>>;

/// The output for user 0 and video 0, of one user and one video whose columns are these; weights not told are 0.
float output_of(const Layers& model, const Weights& weights, std::vector<float> of_user = {},
                std::vector<float> of_video = {}) {
  std::vector<float> dense;
  std::vector<std::vector<float>> tables[2];
  size_t told = 0;
  for (const ParameterSpec& spec : model.parameters()) {
    const auto found = weights.find(spec.name);
    std::vector<float> values(spec.size(), 0.f);
    if (found != weights.end()) {
      ++told;
      EXPECT_EQ(std::ssize(found->second), spec.size()) << spec.name;
      values = found->second;
    }
    if (spec.kind == ParameterKind::kDense)
      dense.insert(dense.end(), values.begin(), values.end());
    else
      tables[spec.kind == ParameterKind::kItemTable].push_back(values);
  }
  EXPECT_EQ(told, weights.size()) << "a weight that the model lacks";
  const auto engine = make_fused_engine(model, {}, Form::kIds, best_simd_level());
  engine->set_dense(dense);
  const int32_t zero = 0;
  const std::vector<float>* columns[2] = {&of_user, &of_video};
  std::vector<float> parts[2];
  for (const Side side : {Side::kUser, Side::kItem}) {
    const auto s = static_cast<size_t>(side);
    IdBatch ids{.n = 1, .row = &zero, .tables = {}, .columns = columns[s]->data()};
    for (const auto& table : tables[s]) ids.tables.push_back(table.data());
    parts[s].resize(engine->part_width(side));
    engine->forward_ids(side, ids, parts[s].data());
  }
  float out = 0;
  engine->predict_rows({.n = 1,
                        .user_parts = parts[0].data(),
                        .item_parts = parts[1].data(),
                        .user = &zero,
                        .item = &zero,
                        .item_id = &zero,
                        .columns = {of_user.data(), of_video.data(), nullptr}},
                       &out);
  return out;
}

/// With one code column of users, of two codes, where `codes` says so, and one number of videos where `numbers` does.
Layers model_of(const std::string& name, const std::map<std::string, OptionValue>& set, bool codes,
                bool numbers) {
  const SystemEntry& entry = find_system(name);
  OptionValues values(entry.options());
  for (const char* none : {"tags", "video_codes"}) values.set(none, false);
  for (const auto& [path, value] : set) values.set(path, value);
  SystemInputs inputs{.users = 1, .items = 1, .columns = {codes, numbers, 0}};
  if (codes) inputs.codes[0] = {2};
  return entry.make(values, inputs).graph;
}

constexpr int64_t kOne = 1, kTwo = 2, kNone = 0;
using Widths = std::vector<int64_t>;

// Naumov et al., section 2.1: the dense vector 2, embeddings 3 and 5 -> (2; 6, 10, 15).
TEST(Dlrm, ConcatenatesTheDenseVectorAndTheDotsOfAllPairs) {
  const Layers model = model_of(
      "dlrm",
      {{"embedding", kOne}, {"bottom", Widths()}, {"top", Widths()}, {"embeddings_to_top", false}},
      false, true);
  Weights weights{{"user", {3}}, {"video", {5}}, {"bottom_output.weight", {4}}};
  const float expected[] = {2, 6, 10, 15};
  for (int k = 0; k < 4; ++k) {
    std::vector<float> one(4);
    one[k] = 1;
    weights["output.weight"] = one;
    EXPECT_EQ(output_of(model, weights, {}, {.5f}), expected[k]) << k;
  }
  EXPECT_EQ(model.width(static_cast<int>(model.layers().size()) - 2), 4);
}

// v = 1, 2, 3: (36 - 14) / 2 = 11; with w = 10, 20, 30 and w0 = 100: 171.
TEST(DeepFm, AddsALineAndTheDotsOfAllPairs) {
  const Layers model =
      model_of("deepfm", {{"embedding", kOne}, {"hidden", Widths({1})}}, true, false);
  const Weights pairs{{"user", {1}}, {"video", {2}}, {"user_codes", {7, 3}}};
  EXPECT_EQ(output_of(model, pairs, {1}), 11);
  EXPECT_EQ(output_of(model, pairs, {0}), 2 + 7 + 14);
  Weights all = pairs;
  all.insert({{"line_user", {10}}, {"line_video", {20}}, {"line_user_codes", {70, 30}}});
  all["output.bias"] = {100};
  EXPECT_EQ(output_of(model, all, {1}), 171);
}

Layers crosses(int64_t rank) {
  return model_of("dcn_v2",
                  {{"embedding", kOne},
                   {"cross.layers", kOne},
                   {"cross.rank", rank},
                   {"cross.place", std::string("before")},
                   {"hidden", Widths()}},
                  false, false);
}

// x0 = (3, 5).
TEST(DcnV2, CrossesAsPublished) {
  const Weights plain{{"user", {3}}, {"video", {5}}, {"output.weight", {1, 10}}};
  EXPECT_EQ(output_of(crosses(kNone), plain), 53) << "the identity";
  Weights twice = plain;
  twice["cross1.bias"] = {1, 1};
  EXPECT_EQ(output_of(crosses(kNone), twice), 106);
  // W x = (3 + 15, 6 + 20) of x = (3, 5); x + x0 * (W x + b) = (3 + 3 * 18.5, 5 + 5 * 25).
  const std::vector<float> matrix{1, 2, 3, 4}, bias{.5f, -1};
  Weights whole = plain;
  whole.insert({{"cross1.weight", matrix}, {"cross1.bias", bias}});
  EXPECT_EQ(output_of(crosses(kNone), whole), 58.5f + 1300);
  Weights low = whole;
  low["cross1.low"] = {1, 0, 0, 1};
  EXPECT_EQ(output_of(crosses(kTwo), low), 58.5f + 1300) << "of rank N with V = I";
}

}  // namespace
}  // namespace kt
