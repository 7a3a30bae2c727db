#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <thread>

#include "launch/base/errors.h"
#include "models/systems/registry.h"
#include "tests/models/ncf_case.h"
#include "tests/reference/ncf_reference.h"

namespace kt {
namespace {

// float32 against double: the largest difference, as a part of the largest value.
constexpr double kTolerance = 2e-6;

std::unique_ptr<LeafEngine> ncf(int64_t features) {
  return make_leaf_engine("ncf", {50, 70, features});
}

void expect_near(std::span<const float> got, const std::vector<double>& want, const char* what) {
  ASSERT_EQ(got.size(), want.size()) << what;
  double largest = 0;
  for (const double x : want) largest = std::max(largest, std::abs(x));
  EXPECT_GT(largest, 0) << what;
  for (size_t i = 0; i < want.size(); ++i)
    ASSERT_NEAR(got[i], want[i], kTolerance * largest) << what << " element " << i;
}

// All bits a call gives.
std::vector<uint32_t> bits_of(const LeafEngine& engine, NcfCase& leaf) {
  const double loss = engine.loss_and_gradients(leaf.input(), .37, leaf.gradients());
  std::vector<float> all = leaf.grad_user;
  all.insert(all.end(), leaf.grad_video.begin(), leaf.grad_video.end());
  all.insert(all.end(), leaf.grad_dense.begin(), leaf.grad_dense.end());
  std::vector<uint32_t> bits(all.size() + 2);
  std::memcpy(bits.data(), all.data(), all.size() * sizeof(float));
  std::memcpy(bits.data() + all.size(), &loss, sizeof(loss));
  return bits;
}

std::vector<float> predictions(const LeafEngine& engine, const NcfCase& leaf) {
  std::vector<float> out(leaf.rows, 7.0f);
  engine.predict(leaf.input(), out);
  return out;
}

TEST(Registry, NamesAndRefusal) {
  EXPECT_EQ(model_declarations().front().name, "ncf");
  EXPECT_THROW(make_layers("mystery", {}), BugError);
  EXPECT_THROW(make_leaf_engine("mystery", {}), BugError);
  const Layers layers = make_layers("ncf", {50, 70, 15});
  EXPECT_EQ(make_engine(layers, {.kind = EngineKind::kFused})->name(), "fused");
  EXPECT_EQ(make_engine(layers, {.kind = EngineKind::kTorch})->name(), "torch");
}

TEST(Ncf, HasTheParametersOfTheReferenceSystem) {
  const auto engine = make_leaf_engine("ncf", {.users = 7176, .items = 10728, .features = 15});
  int64_t count = 0;
  std::vector<std::string> names;
  for (const ParameterSpec& spec : engine->parameters()) {
    count += spec.size();
    names.push_back(spec.name);
  }
  EXPECT_EQ(count, 577'089);
  EXPECT_THAT(names, testing::ElementsAre("user_embedding", "video_embedding", "content.weight",
                                          "content.bias", "hidden1.weight", "hidden1.bias",
                                          "hidden2.weight", "hidden2.bias", "output.weight",
                                          "output.bias"));
  EXPECT_EQ(engine->feature_count(), 15);
  EXPECT_EQ(engine->dropout_width(), 32);
  EXPECT_DOUBLE_EQ(engine->dropout_probability(), .2);
}

TEST(Ncf, InitialValuesAreThoseOfKeras) {
  const auto engine = make_leaf_engine("ncf", {.users = 800, .items = 200, .features = 15});
  for (const ParameterSpec& spec : engine->parameters()) {
    SCOPED_TRACE(spec.name);
    if (spec.kind == ParameterKind::kDense && spec.rows > 1) {
      EXPECT_EQ(spec.initializer, Initializer::kUniform);
      EXPECT_DOUBLE_EQ(spec.scale, std::sqrt(6.0 / static_cast<double>(spec.rows + spec.cols)));
    } else if (spec.kind == ParameterKind::kDense) {
      EXPECT_EQ(spec.initializer, Initializer::kZero);
    } else {
      EXPECT_EQ(spec.initializer, Initializer::kTruncatedNormal);
      EXPECT_DOUBLE_EQ(spec.scale, spec.kind == ParameterKind::kUserTable ? .05 : .1);
    }
  }
}

TEST(Ncf, WithoutContentTheLayerAndItsInputsAreGone) {
  const auto engine = ncf(0);
  EXPECT_EQ(engine->feature_count(), 0);
  EXPECT_EQ(engine->parameters().size(), 8u);
  EXPECT_EQ(engine->parameters()[2].name, "hidden1.weight");
  EXPECT_EQ(engine->parameters()[2].rows, 64);
}

class NcfLeaf : public testing::TestWithParam<std::tuple<int64_t, int64_t>> {};

TEST_P(NcfLeaf, EqualsThePlainReference) {
  const auto [features, rows] = GetParam();
  const auto engine = ncf(features);
  NcfCase leaf(*engine, rows, 12);
  const double scale = .125;
  const double loss = engine->loss_and_gradients(leaf.input(), scale, leaf.gradients());

  const reference::NcfGradients want = reference::ncf_gradients(leaf.reference_batch(), scale);
  EXPECT_NEAR(loss, want.loss, kTolerance * want.loss);
  expect_near(leaf.grad_user, want.user, "user rows");
  expect_near(leaf.grad_video, want.video, "video rows");
  std::span<const float> rest = leaf.grad_dense;
  for (const reference::DenseLayer& layer : want.layers) {
    expect_near(rest.first(layer.weight.size()), layer.weight, "weight");
    rest = rest.subspan(layer.weight.size());
    expect_near(rest.first(layer.bias.size()), layer.bias, "bias");
    rest = rest.subspan(layer.bias.size());
  }
  EXPECT_TRUE(rest.empty());

  reference::NcfBatch batch = leaf.reference_batch();
  batch.dropout.clear();
  expect_near(predictions(*engine, leaf), reference::ncf_predictions(batch), "prediction");
}

TEST_P(NcfLeaf, BitsDependOnTheArgumentsAlone) {
  const auto [features, rows] = GetParam();
  const auto engine = ncf(features);
  NcfCase leaf(*engine, rows, 5);
  const std::vector<uint32_t> want = bits_of(*engine, leaf);
  const std::vector<float> want_predictions = predictions(*engine, leaf);

  for (int64_t shift = 0; shift < 4; ++shift) {
    NcfCase elsewhere(*engine, rows, 5, shift);
    EXPECT_EQ(bits_of(*engine, elsewhere), want) << "arrays moved by " << shift;
    EXPECT_EQ(predictions(*engine, elsewhere), want_predictions) << "arrays moved by " << shift;
  }
  EXPECT_EQ(bits_of(*ncf(features), leaf), want) << "another engine";

  std::vector<int> same(2, 0);
  std::vector<std::thread> threads;
  for (int& count : same)
    threads.emplace_back([&, rows = rows] {
      NcfCase own(*engine, rows, 5);
      for (int i = 0; i < 20; ++i)
        count += bits_of(*engine, own) == want && predictions(*engine, own) == want_predictions;
    });
  for (std::thread& thread : threads) thread.join();
  EXPECT_THAT(same, testing::Each(20)) << "two threads at once";
}

INSTANTIATE_TEST_SUITE_P(FeaturesAndRows, NcfLeaf,
                         testing::Combine(testing::Values(0, 15), testing::Values(1, 2, 67, 1024)));

TEST(NcfLeafEdges, DropoutFactorsAreAppliedInTrainingAlone) {
  const auto engine = ncf(0);
  NcfCase leaf(*engine, 9, 3);
  const std::vector<float> predicted = predictions(*engine, leaf);
  std::ranges::fill(leaf.dropout, 1.0f);
  double plain = 0;
  for (int64_t r = 0; r < leaf.rows; ++r)
    plain += std::pow(static_cast<double>(predicted[r]) - static_cast<double>(leaf.label[r]), 2);
  EXPECT_NEAR(engine->loss_and_gradients(leaf.input(), 1, leaf.gradients()), plain,
              kTolerance * plain);

  // All units dropped: only the biases after them are left, and no gradient passes.
  std::ranges::fill(leaf.dropout, 0.0f);
  engine->loss_and_gradients(leaf.input(), 1, leaf.gradients());
  EXPECT_THAT(leaf.grad_user, testing::Each(0.0f));
  EXPECT_THAT(leaf.grad_video, testing::Each(0.0f));
  EXPECT_NE(leaf.grad_dense.back(), 0.0f);
  EXPECT_EQ(predictions(*engine, leaf), predicted);
}

TEST(NcfLeafEdges, GradientsAreScaledTheLossIsNot) {
  const auto engine = ncf(15);
  NcfCase one(*engine, 8, 4), quarter(*engine, 8, 4);
  const double loss = engine->loss_and_gradients(one.input(), 1, one.gradients());
  EXPECT_EQ(engine->loss_and_gradients(quarter.input(), .25, quarter.gradients()), loss);
  for (int64_t i = 0; i < one.dense_size; ++i)  // a power of two: exact
    ASSERT_EQ(quarter.grad_dense[i], one.grad_dense[i] / 4);
}

TEST(NcfLeafEdges, NoRowsNoLossAndZeroGradients) {
  const auto engine = ncf(15);
  NcfCase leaf(*engine, 0, 4);
  EXPECT_EQ(engine->loss_and_gradients(leaf.input(), 1, leaf.gradients()), 0);
  EXPECT_THAT(leaf.grad_dense, testing::Each(0.0f));
  EXPECT_TRUE(predictions(*engine, leaf).empty());
}

TEST(NcfLeafEdges, WrongShapesAreBugs) {
  const auto engine = ncf(15);
  NcfCase leaf(*engine, 4, 4);
  LeafInput input = leaf.input();
  input.tables[1] = input.tables[1].first(32 * 3);
  EXPECT_THROW(engine->loss_and_gradients(input, 1, leaf.gradients()), BugError);
  input = leaf.input();
  input.dropout = {};
  EXPECT_THROW(engine->loss_and_gradients(input, 1, leaf.gradients()), BugError);
  input = leaf.input();
  input.features = {};
  std::vector<float> out(4);
  EXPECT_THROW(engine->predict(input, out), BugError);
  LeafGradients gradients = leaf.gradients();
  gradients.dense = gradients.dense.first(10);
  EXPECT_THROW(engine->loss_and_gradients(leaf.input(), 1, gradients), BugError);
}

// The reference itself: its gradients are the slopes of its loss.
TEST(NcfReference, GradientsEqualFiniteDifferences) {
  const auto engine = ncf(15);
  reference::NcfBatch batch = NcfCase(*engine, 6, 21).reference_batch();
  const double scale = .5, step = 1e-6;
  const reference::NcfGradients got = reference::ncf_gradients(batch, scale);
  const auto slope = [&](double& x) {
    const double before = x;
    x = before + step;
    const double up = reference::ncf_gradients(batch, scale).loss;
    x = before - step;
    const double down = reference::ncf_gradients(batch, scale).loss;
    x = before;
    return scale * (up - down) / (2 * step);
  };
  const auto check = [&](std::vector<double>& values, const std::vector<double>& gradient) {
    ASSERT_EQ(values.size(), gradient.size());
    int nonzero = 0;
    const size_t stride = 1 + values.size() / 40;
    for (size_t i = 0; i < values.size(); i += stride) {
      EXPECT_NEAR(gradient[i], slope(values[i]), 1e-7) << i;
      nonzero += gradient[i] != 0;
    }
    EXPECT_GT(nonzero, 0);
  };
  check(batch.user, got.user);
  check(batch.video, got.video);
  for (size_t layer = 0; layer < batch.layers.size(); ++layer) {
    check(batch.layers[layer].weight, got.layers[layer].weight);
    check(batch.layers[layer].bias, got.layers[layer].bias);
  }
}

}  // namespace
}  // namespace kt
