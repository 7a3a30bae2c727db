#include "models/trees/lightgbm.h"

#include <dlfcn.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <limits>
#include <memory>
#include <sstream>
#include <string>
#include <string_view>
#include <type_traits>

#include "launch/base/errors.h"
#include "launch/process/watchdog.h"

namespace kt {
namespace {

/// What is called of the library. Source: LightGBM 4.7.0, include/LightGBM/c_api.h.
struct Library {
  int (*LGBM_DatasetCreateFromMat)(const void* data, int type, int32_t rows, int32_t columns,
                                   int is_row_major, const char* parameters, const void* reference,
                                   void** dataset);
  int (*LGBM_DatasetSetField)(void* dataset, const char* field, const void* data, int elements,
                              int type);
  int (*LGBM_DatasetFree)(void* dataset);
  int (*LGBM_BoosterCreate)(const void* dataset, const char* parameters, void** booster);
  int (*LGBM_BoosterUpdateOneIter)(void* booster, int* is_finished);
  int (*LGBM_BoosterGetEval)(void* booster, int data, int* count, double* values);
  int (*LGBM_BoosterGetPredict)(void* booster, int data, int64_t* count, double* outputs);
  int (*LGBM_BoosterSaveModelToString)(void* booster, int first, int iterations, int importance,
                                       int64_t room, int64_t* length, char* text);
  int (*LGBM_BoosterFree)(void* booster);
  const char* (*LGBM_GetLastError)();
};
constexpr int kFloat32 = 0, kInt32 = 2;  // types of the library

Library load() {
  const std::filesystem::path name = "lib_lightgbm.so";
  const DiskWait wait("loading", name);
  void* const handle = dlopen(name.c_str(), RTLD_NOW);
  Library library{};
  const auto find = [&](auto& function, const char* symbol) {
    void* const found = handle ? dlsym(handle, symbol) : nullptr;
    if (!found)
      user_error(
          "{}; trees are found by LightGBM 4: expected its lib_lightgbm.so beside the program or "
          "in LD_LIBRARY_PATH; launch/setup.sh fetches it",
          dlerror());
    function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(found);
  };
#define KT_FIND(symbol) find(library.symbol, #symbol)
  KT_FIND(LGBM_DatasetCreateFromMat);
  KT_FIND(LGBM_DatasetSetField);
  KT_FIND(LGBM_DatasetFree);
  KT_FIND(LGBM_BoosterCreate);
  KT_FIND(LGBM_BoosterUpdateOneIter);
  KT_FIND(LGBM_BoosterGetEval);
  KT_FIND(LGBM_BoosterGetPredict);
  KT_FIND(LGBM_BoosterSaveModelToString);
  KT_FIND(LGBM_BoosterFree);
  KT_FIND(LGBM_GetLastError);
#undef KT_FIND
  return library;
}

const Library& lightgbm() {
  static const Library library = load();
  return library;
}

void expect(int code) {
  if (code != 0) user_error("LightGBM: {}", lightgbm().LGBM_GetLastError());
}

using Handle = std::unique_ptr<void, int (*)(void*)>;

// LambdaRank: a gain is a whole number of so many, of which the greatest target is all; and places of a list that count.
constexpr int kGrades = 20, kPlaces = 20;

/// Shapes: result [N].
std::vector<float> grades_of(std::span<const float> targets) {
  const float unit = std::max(std::ranges::max(targets), 1e-30f) / kGrades;
  std::vector<float> grades;
  for (const float target : targets) grades.push_back(std::floor(std::max(target, 0.f) / unit));
  return grades;
}

std::string parameters(const TreesFit& fit, uint64_t seed) {
  std::string all = fmt::format(
      "verbosity=-1 num_threads=1 deterministic=true force_row_wise=true use_missing=false seed={} "
      "num_leaves={} learning_rate={} min_data_in_leaf={} feature_fraction={} lambda_l2={} ",
      seed % std::numeric_limits<int32_t>::max(), fit.shape.leaves, fit.learning_rate,
      fit.leaf_rows, fit.column_share, fit.l2);
  if (!fit.ranks) return all + "objective=regression metric=l2";
  std::string gains = "0";
  for (int grade = 1; grade <= kGrades; ++grade) gains += fmt::format(",{}", grade);
  return all + fmt::format(
                   "objective=lambdarank metric=ndcg eval_at={0} lambdarank_truncation_level={0} "
                   "label_gain={1}",
                   kPlaces, gains);
}

Handle make_dataset(const TreeRows& rows, const TreesFit& fit, const std::string& parameters) {
  const auto count = static_cast<int32_t>(rows.target.size());
  void* made = nullptr;
  expect(lightgbm().LGBM_DatasetCreateFromMat(rows.columns.data(), kFloat32, count,
                                              static_cast<int32_t>(rows.width), 1,
                                              parameters.c_str(), nullptr, &made));
  Handle dataset(made, lightgbm().LGBM_DatasetFree);
  const auto set = [&](const char* field, const auto& values, int type) {
    expect(lightgbm().LGBM_DatasetSetField(made, field, values.data(),
                                           static_cast<int>(values.size()), type));
  };
  if (fit.ranks) set("group", rows.of_users, kInt32);
  set("label",
      fit.ranks ? grades_of(rows.target) : std::vector(rows.target.begin(), rows.target.end()),
      kFloat32);
  return dataset;
}

std::string text_of(void* booster) {
  int64_t length = 0;
  expect(lightgbm().LGBM_BoosterSaveModelToString(booster, 0, -1, 0, 0, &length, nullptr));
  std::string text(static_cast<size_t>(length), '\0');
  expect(lightgbm().LGBM_BoosterSaveModelToString(booster, 0, -1, 0, length, &length, text.data()));
  return text;
}

template <class Number, class Take>
void for_numbers(const std::string& text, Take take) {
  std::istringstream numbers(text);
  Number number;
  for (int64_t k = 0; numbers >> number; ++k) take(k, number);
}

/// The greatest float that is not above a threshold: no float lies between the two.
float rounded_down(double threshold) {
  const auto nearest = static_cast<float>(threshold);
  return static_cast<double>(nearest) > threshold
             ? std::nextafter(nearest, -std::numeric_limits<float>::infinity())
             : nearest;
}

/// A way of the library, whose leaves are negative numbers from -1 on, as one of ours.
float way_of(int64_t way) { return static_cast<float>(way < 0 ? way + 1 : way); }

/// The library's text of its trees: a line for what all splits or all leaves of a tree have of a kind.
Trees read_trees(const std::string& text, TreesShape shape) {
  Trees trees(shape);
  std::istringstream lines(text);
  int64_t tree = -1;
  for (std::string line; std::getline(lines, line) && line != "end of trees";) {
    const size_t equals = line.find('=');
    if (equals == line.npos) continue;
    const std::string key = line.substr(0, equals), value = line.substr(equals + 1);
    if (key == "version" && value != "v4")
      user_error("lib_lightgbm.so: writes trees of {}, expected v4; use LightGBM 4", value);
    if (key == "Tree") KT_CHECK(++tree < shape.trees, "{} trees of {}", tree + 1, shape.trees);
    if (tree < 0) continue;
    const std::span<Split> splits = trees.splits_of(tree);
    const std::span<float> values = trees.values_of(tree);
    if (key == "split_feature")
      for_numbers<int64_t>(value,
                           [&](int64_t k, int64_t x) { splits[k].column = static_cast<float>(x); });
    if (key == "threshold")
      for_numbers<double>(value,
                          [&](int64_t k, double x) { splits[k].threshold = rounded_down(x); });
    if (key == "left_child")
      for_numbers<int64_t>(value, [&](int64_t k, int64_t x) { splits[k].low = way_of(x); });
    if (key == "right_child")
      for_numbers<int64_t>(value, [&](int64_t k, int64_t x) { splits[k].high = way_of(x); });
    if (key == "leaf_value")
      for_numbers<double>(value, [&](int64_t k, double x) { values[k] = static_cast<float>(x); });
  }
  return trees;
}

}  // namespace

FoundTrees find_trees(const TreeRows& rows, const TreesFit& fit, uint64_t seed) {
  const std::string options = parameters(fit, seed);
  const Handle dataset = make_dataset(rows, fit, options);
  void* made = nullptr;
  expect(lightgbm().LGBM_BoosterCreate(dataset.get(), options.c_str(), &made));
  const Handle booster(made, lightgbm().LGBM_BoosterFree);
  int is_finished = 0;  // no tree can be split any more
  for (int64_t tree = 0; tree < fit.shape.trees && is_finished == 0; ++tree) {
    expect(lightgbm().LGBM_BoosterUpdateOneIter(booster.get(), &is_finished));
    heartbeat();
  }
  FoundTrees found{.trees = read_trees(text_of(booster.get()), fit.shape),
                   .outputs = std::vector<double>(rows.target.size())};
  int metrics = 0;
  double metric = 0;
  expect(lightgbm().LGBM_BoosterGetEval(booster.get(), 0, &metrics, &metric));
  found.loss = fit.ranks ? 1 - metric : metric;
  int64_t outputs = 0;
  expect(lightgbm().LGBM_BoosterGetPredict(booster.get(), 0, &outputs, found.outputs.data()));
  return found;
}

}  // namespace kt
