#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/relu.h>
#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>

#include <thread>

#include "models/systems/registry.h"
#include "tests/models/ncf_case.h"

namespace kt {
namespace {

// Two orders of summation in float32: the largest difference, as a part of the array's largest value.
constexpr double kTolerance = 5e-6;

constexpr int64_t kUsers = 37, kItems = 53;

at::Tensor tensor(const std::vector<float>& values, int64_t rows, int64_t cols) {
  return at::tensor(values, at::kFloat).reshape({rows, cols});
}

void expect_near(const std::vector<float>& got, const at::Tensor& want, const std::string& what) {
  const at::Tensor flat = want.contiguous();
  const float* values = flat.const_data_ptr<float>();
  ASSERT_EQ(std::ssize(got), flat.numel()) << what;
  double largest = 0;
  for (int64_t i = 0; i < flat.numel(); ++i)
    largest = std::max(largest, std::abs(static_cast<double>(values[i])));
  EXPECT_GT(largest, 0) << what;
  for (size_t i = 0; i < got.size(); ++i)
    ASSERT_NEAR(got[i], values[i], kTolerance * largest) << what << " element " << i;
}

class NcfBatch : public testing::TestWithParam<int64_t> {};

// A batch cut into uneven leaves, gradients of gathered rows added up by id, against torch on the whole
// batch: real embedding look-ups, its own loss, its own backward.
TEST_P(NcfBatch, LeavesAddUpToPlainAutogradOnTheWholeBatch) {
  const int64_t features = GetParam();
  const auto engine = make_leaf_engine(
      make_default_system("ncf", {.users = kUsers, .items = kItems, .columns = {0, features, 0}}));
  const std::vector<int64_t> leaf_rows = {0, 1, 40, 3, 0, 128, 17, 67};
  int64_t rows = 0;
  for (const int64_t n : leaf_rows) rows += n;
  const double scale = 1.0 / static_cast<double>(rows);

  const NcfCase all(*engine, rows, 99);
  const std::vector<float> users = random_floats(kUsers * 32, 1, .5);
  const std::vector<float> videos = random_floats(kItems * 32, 2, .5);
  std::vector<int64_t> user(rows), video(rows);
  for (int64_t r = 0; r < rows; ++r) {
    user[r] = static_cast<int64_t>(random_bits(3, Purpose::kSynthetic, r) % kUsers);
    video[r] = static_cast<int64_t>(random_bits(4, Purpose::kSynthetic, r) % kItems);
  }

  double loss = 0;
  std::vector<float> grad_users(users.size()), grad_videos(videos.size()),
      grad_dense(all.dense_size);
  int64_t begin = 0;
  for (const int64_t n : leaf_rows) {
    std::vector<float> leaf_user, leaf_video, leaf_dense(all.dense_size, 7.0f);
    for (int64_t r = begin; r < begin + n; ++r)
      for (int64_t c = 0; c < 32; ++c) {
        leaf_user.push_back(users[user[r] * 32 + c]);
        leaf_video.push_back(videos[video[r] * 32 + c]);
      }
    LeafInput input = all.input();
    input.rows = n;
    input.tables = {leaf_user, leaf_video};
    input.columns = input.columns.subspan(begin * features, n * features);
    input.targets = input.targets.subspan(begin, n);
    input.dropout = input.dropout.subspan(begin * 32, n * 32);
    std::vector<float> leaf_grad_user(n * 32), leaf_grad_video(n * 32);
    loss +=
        engine->loss_and_gradients(input, scale, {{leaf_grad_user, leaf_grad_video}, leaf_dense});
    for (int64_t i = 0; i < all.dense_size; ++i) grad_dense[i] += leaf_dense[i];
    for (int64_t r = 0; r < n; ++r)
      for (int64_t c = 0; c < 32; ++c) {
        grad_users[user[begin + r] * 32 + c] += leaf_grad_user[r * 32 + c];
        grad_videos[video[begin + r] * 32 + c] += leaf_grad_video[r * 32 + c];
      }
    begin += n;
  }

  at::Tensor user_table = tensor(users, kUsers, 32).set_requires_grad(true);
  at::Tensor video_table = tensor(videos, kItems, 32).set_requires_grad(true);
  std::vector<at::Tensor> dense;
  size_t array = 0;
  for (const ParameterSpec& spec : engine->parameters())
    if (spec.kind == ParameterKind::kDense)
      dense.push_back(tensor(all.dense[array++], spec.rows, spec.cols).set_requires_grad(true));
  size_t next = 0;
  const auto layer = [&](const at::Tensor& x) {
    next += 2;
    return at::matmul(x, dense[next - 2]).add(dense[next - 1]);
  };
  std::vector<at::Tensor> parts = {at::index_select(user_table, 0, at::tensor(user, at::kLong)),
                                   at::index_select(video_table, 0, at::tensor(video, at::kLong))};
  if (features > 0) parts.push_back(at::relu(layer(tensor(all.content, rows, features))));
  const at::Tensor hidden1 = at::relu(layer(at::cat(parts, 1)));
  const at::Tensor hidden2 = at::relu(layer(hidden1.mul(tensor(all.dropout, rows, 32))));
  const at::Tensor squares = layer(hidden2).sub(tensor(all.label, rows, 1)).square();
  squares.mean().backward();

  const double want_loss = squares.sum().item<double>();
  EXPECT_NEAR(loss, want_loss, kTolerance * want_loss);
  expect_near(grad_users, user_table.grad(), "user_embedding");
  expect_near(grad_videos, video_table.grad(), "video_embedding");
  int64_t offset = 0;
  array = 0;
  for (const ParameterSpec& spec : engine->parameters()) {
    if (spec.kind != ParameterKind::kDense) continue;
    const auto first = grad_dense.begin() + offset;
    expect_near({first, first + spec.size()}, dense[array++].grad(), spec.name);
    offset += spec.size();
  }
}

INSTANTIATE_TEST_SUITE_P(Features, NcfBatch, testing::Values(0, 15));

// A caller thread with many intra-op threads set: the engine takes one, and gives the same bits.
TEST(NcfThreads, OneIntraOpThreadWhateverTheCallerHas) {
  const auto engine = make_leaf_engine(
      make_default_system("ncf", {.users = kUsers, .items = kItems, .columns = {0, 15, 0}}));
  NcfCase here(*engine, 2048, 8), there(*engine, 2048, 8);
  const double loss = engine->loss_and_gradients(here.input(), 1, here.gradients());
  double other_loss = 0;
  int before = 0, after = 0;
  std::thread([&] {
    at::set_num_threads(4);
    before = at::get_num_threads();
    other_loss = engine->loss_and_gradients(there.input(), 1, there.gradients());
    after = at::get_num_threads();
  }).join();
  EXPECT_EQ(before, 4);
  EXPECT_EQ(after, 1);
  EXPECT_EQ(other_loss, loss);
  EXPECT_EQ(there.grad_user, here.grad_user);
  EXPECT_EQ(there.grad_video, here.grad_video);
  EXPECT_EQ(there.grad_dense, here.grad_dense);
}

}  // namespace
}  // namespace kt
