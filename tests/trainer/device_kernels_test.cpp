// The bodies of a device's loops, run here with the last element first, against the CPU's code.
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <limits>
#include <numeric>
#include <vector>

#include "tests/support/dropout.h"
#include "trainer/devices/kernels.h"

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
  const std::vector<float> label = numbers(1, rows);
  std::vector<uint32_t> row(rows);
  std::iota(row.begin(), row.end(), 3000U);

  int64_t seen = 0;
  for (int64_t t = 0; t < schedule.steps(); ++t) {
    std::vector<int64_t> unit_begin(5, -1), position(4, -1), expected;
    run(5, kernel::PlaceShards{counts.data(), phase.data(), schedule.steps(), t, 4,
                               unit_begin.data(), position.data()});
    for (int64_t j = 0; j < 4; ++j) {
      EXPECT_EQ(unit_begin[j], std::ssize(expected));
      const Range positions = schedule.positions(j, t);
      for (int64_t p = positions.begin; p < positions.end; ++p)
        expected.push_back(first[j] + order[j](p));
    }
    const auto n = std::ssize(expected);
    EXPECT_EQ(unit_begin[4], n);
    std::vector<int32_t> users(n), items(n);
    std::vector<float> labels(n);
    std::vector<uint32_t> row_numbers(n);
    run(n, kernel::GatherSamples{unit_begin.data(), position.data(), first.data(), order.data(),
                                 user.data(), item.data(), label.data(), row.data(), users.data(),
                                 items.data(), labels.data(), row_numbers.data()});
    for (int64_t k = 0; k < n; ++k) {
      EXPECT_EQ(users[k], user[expected[k]]);
      EXPECT_EQ(items[k], item[expected[k]]);
      EXPECT_EQ(labels[k], label[expected[k]]);
      EXPECT_EQ(row_numbers[k], row[expected[k]]);
    }
    seen += n;
  }
  EXPECT_EQ(seen, rows);
}

TEST(DeviceKernels, DropoutIsThatOfTheCpu) {
  const std::vector<uint32_t> rows{7, 4'000'000'000U, 0};
  std::vector<float> device(3 * 33), host(33);
  run(std::ssize(device), kernel::Dropout{11, 4, 33, dropout_threshold(.2), dropout_kept(.2),
                                          rows.data(), device.data()});
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
  std::vector<int32_t> sorted;
  for (const int32_t k : order) sorted.push_back(ids[k]);
  std::vector<float> expected(7 * 2, 0.f), sums(7 * 2, 0.f);
  for (int64_t k = 0; k < 6; ++k)
    for (int64_t c = 0; c < 2; ++c) expected[(ids[k] - 3) * 2 + c] += rows[k * 2 + c];
  run(6 * 2, kernel::SumRows{sorted.data(), order.data(), 6, 3, 2, rows.data(), sums.data()});
  EXPECT_EQ(sums, expected);
  EXPECT_EQ(sums[2], .5f);  // 1e8 - 1e8 + .5
}

TEST(DeviceKernels, TreesAreThoseOfTheCpu) {
  constexpr int64_t kWidth = 5, kLeaves = 16;
  const Range own{3, 14};
  std::vector<float> host = numbers(3, own.size() * kWidth), device = host;
  const std::vector<TreeAdd> adds = subtree_adds(own);
  ThreadPool pool(1);
  sum_subtrees(host, kWidth, own, pool);
  run(kWidth, kernel::AddBuffers{adds.data(), std::ssize(adds), kWidth, device.data()});
  EXPECT_EQ(device, host);

  std::vector<double> leaves;
  for (uint64_t k = 0; k < kLeaves; ++k) leaves.push_back(number(4, k) * 1e-7 + number(5, k));
  const double sum = tree_sum(leaves);
  EXPECT_EQ(kernel::sum_tree(leaves.data(), kLeaves), sum);
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
    run(1, kernel::Judge{losses.data(), 4, {}, norms.data(), 2, clip_norm, &log, &bad, &scale});
    EXPECT_EQ(bad, is_bad) << loss << " " << squared_norm;
    if (loss == 1) {
      EXPECT_EQ(log.loss, 10);
    }
    if (squared_norm == 2) {
      EXPECT_EQ(log.gradient_norm, std::sqrt(3.));
    }
    const float one = 1, gradient = 1;
    float value = 1;
    const UpdateFactors factors = update_factors({.rule = OptimizerRule::kSgd}, .5, 1);
    run(1, kernel::Update{factors, &bad, &one, &gradient, &value, nullptr, nullptr});
    EXPECT_EQ(value, is_bad ? 1.f : .5f);
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
    std::vector<double> losses{1}, copy = norms;
    StepOutcome log;
    int32_t bad = 0;
    float scale = 0;
    run(1, kernel::Judge{losses.data(), 1, {}, copy.data(), 2, clip_norm, &log, &bad, &scale});
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
      const UpdateFactors factors = update_factors(optimizer, .01, step);
      optimizer_update(factors, scale, best_simd_level(),
                       {.rows = 1,
                        .cols = kCount,
                        .value = host.data(),
                        .gradient = gradient.data(),
                        .slot1 = slot(host_slots, 0),
                        .slot2 = slot(host_slots, 1)});
      run(kCount, kernel::Update{factors, &bad, &scale, gradient.data(), device.data(),
                                 slot(device_slots, 0), slot(device_slots, 1)});
    }
    EXPECT_EQ(device, host);
    EXPECT_EQ(device_slots[0], host_slots[0]);
    EXPECT_EQ(device_slots[1], host_slots[1]);
    EXPECT_NE(device, numbers(7, kCount));
  }
}

}  // namespace
}  // namespace kt
