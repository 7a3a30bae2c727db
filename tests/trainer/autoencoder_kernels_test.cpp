// The bodies of an autoencoder's step on devices, against the CPU's kernels.
#include "trainer/devices/autoencoder_kernels.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <vector>

#include "launch/base/flush_small.h"
#include "launch/base/huge_pages.h"
#include "launch/base/math.h"
#include "models/all_items/kernels.h"
#include "trainer/devices/kernels.h"

namespace kt {
namespace {

using all_items::padded;
using all_items::whole_panels;

float number(uint64_t what, int64_t k) {
  return static_cast<float>(
      2 * to_uniform(random_bits(what, Purpose::kSynthetic, static_cast<uint64_t>(k))) - 1);
}

/// Numbers in rows, as devices have them and as the CPU does.
struct Numbers {
  Numbers(uint64_t what, int64_t rows, int64_t columns, float scale = 1)
      : plain(rows * columns), in_vectors(whole_panels(rows) * padded(columns), 0) {
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t c = 0; c < columns; ++c)
        in_vectors[r * padded(columns) + c] = plain[r * columns + c] =
            scale * number(what, r * columns + c);
  }
  std::vector<float> plain;
  AlignedFloats in_vectors;
};

std::vector<float> without_padding(const AlignedFloats& from, int64_t rows, int64_t columns) {
  std::vector<float> to;
  for (int64_t r = 0; r < rows; ++r)
    to.insert(to.end(), from.begin() + r * padded(columns),
              from.begin() + r * padded(columns) + columns);
  return to;
}

/// By teams of one thread, elements of their loops in either order.
std::vector<float> by_tiles(const kernel::Product& product, bool backwards) {
  const FlushSmall flush;
  std::vector<float> result(product.rows * product.columns, -1);
  const auto memory = std::make_unique<kernel::TileMemory>();
  for (int64_t tile = 0; tile < kernel::tiles_of(product.rows, product.columns); ++tile)
    kernel::RunProduct<kernel::StoreElement>{product, {result.data(), product.columns}}(
        Team{.backwards = backwards}, tile, memory.get());
  return result;
}

struct Size {
  int64_t rows, in, out;
};
constexpr Size kSizes[] = {{1, 1, 1}, {3, 70, 5}, {65, 33, 129}, {130, 32, 17}, {64, 1, 128}};

TEST(AutoencoderKernels, ProductsAreThoseOfTheCpu) {
  const auto& kernels = all_items::kernels(SimdLevel::kAvx2);
  for (const auto& [rows, in, out] : kSizes)
    for (const float scale : {1.f, 1e-20f}) {  // of products below the smallest normal number
      const Numbers x(1, rows, in, scale), w(2, in, out, scale), bias(3, 1, out, scale * scale);
      for (const bool starts : {false, true}) {
        AlignedFloats y(whole_panels(rows) * padded(out), 0);
        kernels.product({.rows = rows,
                         .in = in,
                         .out = out,
                         .x = x.in_vectors.data(),
                         .weights = w.in_vectors.data(),
                         .bias = starts ? bias.in_vectors.data() : nullptr,
                         .y = y.data()});
        std::vector<float> transposed(in * out);
        for (int64_t k = 0; k < in; ++k)
          for (int64_t c = 0; c < out; ++c) transposed[c * in + k] = w.plain[k * out + c];
        const float* start = starts ? bias.plain.data() : nullptr;
        for (const bool backwards : {false, true}) {
          const std::vector<float> want = without_padding(y, rows, out);
          EXPECT_EQ(by_tiles({rows, out, in, {x.plain.data(), in}, {w.plain.data(), out}, start},
                             backwards),
                    want)
              << rows << " " << in << " " << out;
          EXPECT_EQ(
              by_tiles({rows, out, in, {x.plain.data(), in}, {transposed.data(), 1, in}, start},
                       backwards),
              want);
        }
      }
      // x' dy.
      const Numbers dy(4, rows, out, scale);
      std::vector<float> want(in * out, 0.f), bias_want(out, 0.f), bias_found(out, -1.f);
      kernels.gradient({.rows = rows,
                        .in = in,
                        .out = out,
                        .x = x.in_vectors.data(),
                        .dy = dy.in_vectors.data(),
                        .weights = want.data(),
                        .bias = bias_want.data()});
      EXPECT_EQ(by_tiles({in, out, rows, {x.plain.data(), 1, in}, {dy.plain.data(), out}}, false),
                want);
      const FlushSmall flush;
      for (int64_t c = 0; c < out; ++c)
        kernel::SumColumns{dy.plain.data(), rows, out, bias_found.data()}(c);
      EXPECT_EQ(bias_found, bias_want);
    }
}

TEST(AutoencoderKernels, ZeroTargetsAndBiasesAreThoseOfTheCpu) {
  const auto& kernels = all_items::kernels(SimdLevel::kAvx2);
  constexpr int64_t kItems = 70, kUsers = 21;
  const std::vector<int32_t> panel_begin{0, 64, 70};
  for (const bool logistic : {false, true}) {
    Numbers y(5, kItems, kUsers, 30);
    y.plain[7] = y.in_vectors[7] = 0;
    std::vector<double> losses(2 * kUsers, -1);
    {
      const FlushSmall flush;
      for (int64_t e = 2 * kUsers; e-- > 0;)
        kernel::ZeroTargets{panel_begin.data(), kUsers,       logistic, .3f,
                            y.plain.data(),     losses.data()}(e);
    }
    for (int64_t panel = 0; panel < 2; ++panel) {
      std::vector<float> sums(padded(kUsers)), products(padded(kUsers));
      kernels.zero_targets({.rows = panel_begin[panel + 1] - panel_begin[panel],
                            .columns = kUsers,
                            .logistic = logistic,
                            .scale = .3f,
                            .y = y.in_vectors.data() + panel * 64 * padded(kUsers),
                            .sums = sums.data(),
                            .products = products.data()});
      for (int64_t user = 0; user < kUsers; ++user)
        EXPECT_EQ(losses[panel * kUsers + user],
                  static_cast<double>(sums[user]) + math::log(static_cast<double>(products[user])));
    }
    EXPECT_EQ(without_padding(y.in_vectors, kItems, kUsers), y.plain);
    EXPECT_GT(*std::ranges::max_element(losses), 0);

    std::vector<float> found(kItems, -1);
    std::vector<int32_t> rows(kItems);
    for (int32_t k = 0; k < kItems; ++k) rows[k] = kItems - 1 - k;
    const FlushSmall flush;
    for (int64_t k = 0; k < kItems; ++k)
      kernel::OutputBiasGradients{y.plain.data(), rows.data(), kUsers, found.data()}(k);
    for (int64_t k = 0; k < kItems; ++k)
      EXPECT_EQ(found[rows[k]], kernels.sum(y.plain.data() + k * kUsers, kUsers));
  }
}

TEST(AutoencoderKernels, CellsAreFoundByUserBlockAndItem) {
  // Users 2 and 0 of three; blocks of the items 10 to 13 and 13 to 16.
  const std::vector<int64_t> history_begin{0, 3, 4, 6}, cell_begin{0, 2, 5}, blocks{10, 13, 16};
  const std::vector<int32_t> items{10, 12, 15, 11, 12, 14}, users{2, 0};
  const std::vector<float> targets{1, 0, 1, 1, .5, 1};
  const std::vector<uint32_t> keys{77, 88};
  std::vector<int32_t> user(5), item(5);
  std::vector<float> target(5), input(5);
  const kernel::Cells cells{user.data(), item.data(), target.data(), input.data()};
  const uint32_t threshold = dropout_threshold(.4);
  for (int64_t k = 0; k < 5; ++k)
    kernel::GatherCells{2,
                        users.data(),
                        keys.data(),
                        cell_begin.data(),
                        history_begin.data(),
                        items.data(),
                        targets.data(),
                        true,
                        threshold,
                        dropout_kept(.4),
                        cells}(k);
  EXPECT_EQ(user, (std::vector<int32_t>{0, 0, 1, 1, 1}));
  EXPECT_EQ(item, (std::vector<int32_t>{12, 14, 10, 12, 15}));
  EXPECT_EQ(target, (std::vector<float>{.5, 1, 1, 0, 1}));
  for (int64_t k = 0; k < 5; ++k)
    EXPECT_EQ(input[k], (2 * target[k] - 1) *
                            dropout_factor(keys[user[k]], item[k], threshold, dropout_kept(.4)));
  std::vector<int64_t> place(6), by_item(7);
  for (int64_t e = 0; e < 6; ++e)
    kernel::PlaceBlocks{cell_begin.data(), blocks.data(), 2, item.data(), place.data()}(e);
  EXPECT_EQ(place, (std::vector<int64_t>{0, 1, 2, 2, 4, 5}));
  std::vector<int32_t> sorted = item;
  std::ranges::sort(sorted);
  for (int64_t row = 0; row < 7; ++row)
    kernel::PlaceItems{sorted.data(), 5, 10, by_item.data()}(row);
  EXPECT_EQ(by_item, (std::vector<int64_t>{0, 1, 1, 3, 3, 4, 5}));
}

}  // namespace
}  // namespace kt
