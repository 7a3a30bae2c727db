// The bodies of a device's loops, run here with the last element first, against the CPU's code.
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <limits>
#include <numeric>
#include <vector>

#include "sharding/batch_statistics.h"
#include "tests/support/dropout.h"
#include "trainer/devices/norm_kernels.h"
#include "trainer/devices/step_rows.h"

namespace kt {
namespace {

/// A device promises no order: the last element first.
template <class Body>
void run(int64_t n, const Body& body) {
  for (int64_t k = n; k-- > 0;) body(k);
}

float number(uint64_t what, uint64_t k) {
  return static_cast<float>(to_uniform(random_bits(what, Purpose::kSynthetic, k)) - .4) *
         static_cast<float>(1 + k % 7);
}

std::vector<float> numbers(uint64_t what, int64_t n) {
  std::vector<float> result;
  for (int64_t k = 0; k < n; ++k) result.push_back(number(what, static_cast<uint64_t>(k)));
  return result;
}

TEST(DeviceKernels, SamplesOfAStepAreThoseOfTheSchedule) {
  const std::vector<int64_t> counts{40, 0, 7, 113};
  const Schedule schedule(counts, 32);
  std::vector<int64_t> phase, first{0};
  std::vector<EpochOrder> order;
  for (int64_t j = 0; j < 4; ++j) {
    phase.push_back(schedule.phase(j));
    first.push_back(first.back() + counts[j]);
    order.push_back(epoch_order(counts[j], 5, 2, j));
  }
  const int64_t rows = first.back();
  std::vector<int32_t> user(rows), item(rows);
  std::iota(user.begin(), user.end(), 1000);
  std::iota(item.begin(), item.end(), 2000);
  const std::vector<float> label = numbers(1, rows), column = numbers(8, 2 * rows);
  std::vector<uint32_t> row(rows);
  std::iota(row.begin(), row.end(), 3000U);

  const StepRows step_rows(schedule, {0, 4}, 1);
  int64_t seen = 0;
  for (int64_t t = 0; t < schedule.steps(); t += 2) {
    const Range steps{t, std::min(t + 2, schedule.steps())};
    std::vector<int64_t> expected;
    for (int64_t k = t; k < steps.end; ++k)
      for (int64_t j = 0; j < 4; ++j) {
        EXPECT_EQ(step_rows.begin()[k * 4 + j], seen + std::ssize(expected));
        const Range positions = schedule.positions(j, k);
        for (int64_t p = positions.begin; p < positions.end; ++p)
          expected.push_back(first[j] + order[j](p));
      }
    const auto n = std::ssize(expected);
    EXPECT_EQ(step_rows.of(steps).size(), n);
    std::vector<int32_t> users(n), items(n);
    std::vector<float> labels(n), columns(2 * n);
    std::vector<uint32_t> keys(n);
    run(n, kernel::GatherSamples{.begin = step_rows.begin().data(),
                                 .step = t,
                                 .taken = steps.size(),
                                 .units = 4,
                                 .samples = counts.data(),
                                 .phase = phase.data(),
                                 .steps = schedule.steps(),
                                 .first_row = first.data(),
                                 .order = order.data(),
                                 .seed = 5,
                                 .epoch = 2,
                                 .column_count = 2,
                                 .user_from = user.data(),
                                 .item_from = item.data(),
                                 .target_from = label.data(),
                                 .row_from = row.data(),
                                 .columns_from = column.data(),
                                 .user = users.data(),
                                 .item = items.data(),
                                 .target = labels.data(),
                                 .dropout_key = keys.data(),
                                 .columns = columns.data()});
    for (int64_t k = 0; k < n; ++k) {
      EXPECT_EQ(users[k], user[expected[k]]);
      EXPECT_EQ(items[k], item[expected[k]]);
      EXPECT_EQ(labels[k], label[expected[k]]);
      EXPECT_EQ(keys[k], dropout_key(5, 2, row[expected[k]]));
      EXPECT_EQ(columns[2 * k + 1], column[2 * expected[k] + 1]);
    }
    seen += n;
  }
  EXPECT_EQ(seen, rows);
}

TEST(DeviceKernels, DropoutIsThatOfTheCpu) {
  const std::vector<uint32_t> rows{7, 4'000'000'000U, 0};
  std::vector<uint32_t> keys;
  for (const uint32_t row : rows) keys.push_back(dropout_key(11, 4, row));
  std::vector<float> device(3 * 33), host(33);
  run(std::ssize(device),
      kernel::Dropout{33, dropout_threshold(.2), dropout_kept(.2), keys.data(), device.data()});
  for (size_t k = 0; k < rows.size(); ++k) {
    dropout_factors(11, 4, rows[k], .2, host);
    EXPECT_TRUE(std::equal(host.begin(), host.end(), device.begin() + 33 * static_cast<long>(k)));
  }
  EXPECT_GT(std::count(device.begin(), device.end(), 0.f), 5);
}

TEST(DeviceKernels, RowsGoThereAndBack) {
  const std::vector<float> table = numbers(2, 6 * 3);
  const std::vector<int32_t> ids{12, 10, 15, 12};
  std::vector<float> rows(4 * 3), placed(4 * 3);
  run(12, kernel::GatherRows{table.data(), ids.data(), 10, 3, rows.data()});
  for (int64_t k = 0; k < 4; ++k)
    for (int64_t c = 0; c < 3; ++c) EXPECT_EQ(rows[k * 3 + c], table[(ids[k] - 10) * 3 + c]);
  const std::vector<int32_t> places{2, 0, 3, 1};
  run(12, kernel::ScatterRows{rows.data(), places.data(), 3, placed.data()});
  for (int64_t k = 0; k < 4; ++k)
    for (int64_t c = 0; c < 3; ++c) EXPECT_EQ(placed[places[k] * 3 + c], rows[k * 3 + c]);
  const std::vector<int64_t> index{5, 0, 3};
  std::vector<float> picked(3), put(6, 0.f);
  run(3, kernel::Gather{table.data(), index.data(), picked.data()});
  run(3, kernel::Scatter{picked.data(), index.data(), put.data()});
  EXPECT_EQ(put, (std::vector<float>{table[0], 0, 0, table[3], 0, table[5]}));
}

TEST(DeviceKernels, RowsOfAnIdAreAddedInOrder) {
  // Numbers whose sum shows the order.
  const std::vector<int32_t> ids{4, 9, 4, 4, 6, 9};
  const std::vector<float> rows{1e8f, 1, 2, 3, -1e8f, 4, .5f, 5, 6, 7, 3e-8f, 8};
  std::vector<int32_t> order(6);
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](int32_t a, int32_t b) { return ids[a] < ids[b]; });
  std::vector<float> expected(7 * 2, 0.f), sums(7 * 2, 0.f);
  for (int64_t k = 0; k < 6; ++k)
    for (int64_t c = 0; c < 2; ++c) expected[(ids[k] - 3) * 2 + c] += rows[k * 2 + c];
  // The ids 4, 6 and 9, as rows from 3 on; a step of another unit before it.
  const std::vector<int32_t> id{0, 1, 3, 6}, begin{0, 0, 3, 4}, end{0, 3, 4, 6};
  const std::vector<int64_t> unit_begin{0, 1, 4};
  kernel::StepNow now{};
  now.plan.step = 1;
  run(9 * 2, kernel::SumIds{&now,
                            {id.data(), begin.data(), end.data(), order.data(), unit_begin.data()},
                            1,
                            2,
                            rows.data(),
                            sums.data()});
  EXPECT_EQ(sums, expected);
  EXPECT_EQ(sums[2], .5f);  // 1e8 - 1e8 + .5
}

TEST(DeviceKernels, TreesAreThoseOfTheCpu) {
  constexpr int64_t kWidth = 5, kLeaves = 16;
  const Range own{3, 14};
  const std::vector<float> leaves_of_rank = numbers(3, own.size() * kWidth);
  std::vector<float> host = leaves_of_rank;
  ThreadPool pool(1);
  sum_subtrees(host, kWidth, own, pool);
  std::vector<int64_t> index;
  std::vector<int32_t> level;
  std::vector<float> expected;
  for (const TreeNode& node : subtrees(own))
    for (int64_t c = 0; c < kWidth; ++c) {
      index.push_back((node.first_leaf() - own.begin) * kWidth + c);
      level.push_back(node.level);
      expected.push_back(host[index.back()]);
    }
  std::vector<float> device(index.size());
  run(std::ssize(index), kernel::SumSubtrees{leaves_of_rank.data(), index.data(), level.data(),
                                             kWidth, device.data()});
  EXPECT_EQ(device, expected);

  std::vector<TreeNode> nodes = subtrees({0, 3});
  for (const TreeNode& node : subtrees({3, kLeaves})) nodes.push_back(node);
  device = numbers(9, std::ssize(nodes) * kWidth);
  std::vector<float> result(kWidth);
  const std::vector<TreeAdd> adds = finish_adds(nodes);
  std::vector<const float*> sums;
  for (size_t k = 0; k < nodes.size(); ++k) sums.push_back(device.data() + k * kWidth);
  std::vector<float> expected_sum(kWidth);
  finish_tree(sums, adds, expected_sum, pool);
  run(kWidth,
      kernel::AddBuffers{adds.data(), std::ssize(adds), kWidth, device.data(), result.data()});
  EXPECT_EQ(result, expected_sum);

  std::vector<double> leaves;
  for (uint64_t k = 0; k < kLeaves; ++k) leaves.push_back(number(4, k) * 1e-7 + number(5, k));
  EXPECT_EQ(kernel::sum_tree<double>(4, [&](int64_t k) { return leaves[k]; }), tree_sum(leaves));
}

TEST(DeviceKernels, MomentsAreThoseOfTheCpu) {
  constexpr int64_t kWidth = 3, kLeaves = 8;
  std::vector<double> leaves;
  for (int64_t k = 0; k < kLeaves; ++k) {
    leaves.push_back(k == 2 ? 0 : static_cast<double>(k + 3));  // one without rows
    for (int64_t c = 0; c < 2 * kWidth; ++c)
      leaves.push_back(k == 2 ? 0 : std::abs(number(7, static_cast<uint64_t>(k * 100 + c))));
  }
  const std::vector<double> expected = merge_moments(leaves, kWidth);
  std::vector<float> dense(4 * kWidth, .5f), numbers(fused::kNormNumbers * fused::padded(kWidth));
  std::vector<double> moments(1 + 2 * kWidth);
  run(kWidth, kernel::SetStatistics{.leaves = leaves.data(),
                                    .level = 3,
                                    .norm = {.width = kWidth,
                                             .numbers = 0,
                                             .x = 0,
                                             .dy = 0,
                                             .gamma = 0,
                                             .beta = kWidth,
                                             .mean = 2 * kWidth,
                                             .variance = 3 * kWidth,
                                             .epsilon = 1e-3},
                                    .forward = true,
                                    .dense = dense.data(),
                                    .numbers = numbers.data(),
                                    .moments = moments.data()});
  EXPECT_EQ(moments, expected);
}

TEST(DeviceKernels, AnOutcomeThatIsNotSoundStopsEveryUpdate) {
  constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  struct Case {
    double loss, squared_norm, clip_norm;
    bool bad;
  };
  for (const auto& [loss, squared_norm, clip_norm, is_bad] :
       {Case{1, 2, 0, false}, Case{kNan, 2, 0, true}, Case{kInfinity, 2, 0, true},
        Case{1, kNan, 0, true}, Case{1, kInfinity, 1, true}, Case{1, 1e40, 0, true},
        Case{1, 1e40, 1, false}}) {
    std::vector<double> losses{2, loss, 3, 4}, norms{1, squared_norm};
    StepOutcome log;
    int32_t bad = 0;
    float scale = 0;
    kernel::StepNow now{};
    now.plan.factors = update_factors({.rule = OptimizerRule::kSgd}, .5, 1);
    kernel::Judge{{}, 0,         losses.data(), 2,    {},   norms.data(),
                  1,  clip_norm, &now,          &log, &bad, &scale}(Team{}, 0, nullptr);
    EXPECT_EQ(bad, is_bad) << loss << " " << squared_norm;
    if (loss == 1) {
      EXPECT_EQ(log.loss, 10);
    }
    if (squared_norm == 2) {
      EXPECT_EQ(log.gradient_norm, std::sqrt(3.));
    }
    const float one = 1;
    const std::vector<float> gradient{1, 1};
    std::vector<float> value{1, 1}, velocity{0, 0}, none{0, 0};
    const uint8_t still = 1;  // the first is not trained
    run(2, kernel::Update{.now = &now,
                          .bad = &bad,
                          .scale = &one,
                          .still = &still,
                          .stills = 1,
                          .gradient = gradient.data(),
                          .value = value.data(),
                          .slot1 = velocity.data(),
                          .slot2 = none.data()});
    EXPECT_EQ(value, (std::vector<float>{1, is_bad ? 1.f : .5f}));
  }
}

TEST(DeviceKernels, GradientNormAndClippingAreThoseOfTheCpu) {
  // Two blocks of two arrays, of 37 and of 3 columns.
  const std::vector<int64_t> begin{0, 185, 111, 191}, end{111, 191, 185, 200}, cols{37, 3};
  const std::vector<float> gradient = numbers(6, 200);
  std::vector<double> expected(2, 0.);
  for (size_t p = 0; p < 4; ++p) {
    SquaredNorm norm;
    for (int64_t row = begin[p]; row < end[p]; row += cols[p % 2])
      norm.add_row(gradient.data() + row, cols[p % 2]);
    expected[p / 2] += norm.total();
  }
  std::vector<double> lanes(4 * SquaredNorm::kLanes), norms(2);
  run(std::ssize(lanes), kernel::SquaredLanes{begin.data(), end.data(), cols.data(), 2,
                                              gradient.data(), lanes.data()});
  run(2, kernel::FoldLanes{lanes.data(), 2, norms.data()});
  EXPECT_EQ(norms, expected);
  double plain = 0;
  for (const float g : gradient) plain += static_cast<double>(g) * g;
  EXPECT_NEAR(norms[0] + norms[1], plain, 1e-12 * plain);

  const double norm = std::sqrt(expected[0] + expected[1]);
  for (const double clip_norm : {norm / 3, 2 * norm, 0.}) {
    const double loss = 1;
    const kernel::StepNow now{};
    StepOutcome log;
    int32_t bad = 0;
    float scale = 0;
    std::vector<double> folded(2);
    kernel::Judge{{lanes.data(), 2, folded.data()},
                  2,
                  &loss,
                  0,
                  {},
                  folded.data(),
                  1,
                  clip_norm,
                  &now,
                  &log,
                  &bad,
                  &scale}(Team{}, 0, nullptr);
    EXPECT_EQ(folded, norms);
    EXPECT_EQ(scale, clip_norm == norm / 3 ? static_cast<float>(clip_norm / norm) : 1.f);
  }
}

TEST(DeviceKernels, UpdatesAreThoseOfTheCpu) {
  constexpr int64_t kCount = 37;
  const Optimizer optimizers[] = {
      {.rule = OptimizerRule::kAdam, .weight_decay = .01},
      {.rule = OptimizerRule::kAdamW, .weight_decay = .01},
      {.rule = OptimizerRule::kSgd},
      {.rule = OptimizerRule::kSgd, .momentum = .9, .weight_decay = .1},
  };
  for (const Optimizer& optimizer : optimizers) {
    const int slots = optimizer_slots(optimizer);
    std::vector<float> host = numbers(7, kCount), device = host, host_slots[2], device_slots[2];
    for (int slot = 0; slot < slots; ++slot) {
      host_slots[slot].assign(kCount, 0.f);
      device_slots[slot].assign(kCount, 0.f);
    }
    const float scale = .75f;
    const int32_t bad = 0;
    for (int64_t step = 1; step < 5; ++step) {
      const std::vector<float> gradient = numbers(static_cast<uint64_t>(10 + step), kCount);
      const auto slot = [&](std::vector<float>* of, int n) {
        return slots > n ? of[n].data() : nullptr;
      };
      kernel::StepNow now{};
      const UpdateFactors factors = now.plan.factors = update_factors(optimizer, .01, step);
      optimizer_update(factors, scale, best_simd_level(),
                       {.rows = 1,
                        .cols = kCount,
                        .value = host.data(),
                        .gradient = gradient.data(),
                        .slot1 = slot(host_slots, 0),
                        .slot2 = slot(host_slots, 1)});
      run(kCount, kernel::Update{.now = &now,
                                 .bad = &bad,
                                 .scale = &scale,
                                 .still = nullptr,
                                 .stills = 0,
                                 .gradient = gradient.data(),
                                 .value = device.data(),
                                 .slot1 = slot(device_slots, 0),
                                 .slot2 = slot(device_slots, 1)});
    }
    EXPECT_EQ(device, host);
    EXPECT_EQ(device_slots[0], host_slots[0]);
    EXPECT_EQ(device_slots[1], host_slots[1]);
    EXPECT_NE(device, numbers(7, kCount));
  }
}

}  // namespace
}  // namespace kt
