// The kernels of a training step one by one, each with what bounds it: `flops` beside the peak of fused multiply-adds,
// `bytes_per_second` beside the memory a core reads. One thread.
//   bench_kernels [--benchmark_filter=...]
#include <benchmark/benchmark.h>
#include <immintrin.h>

#include <numeric>
#include <vector>

#include "launch/base/huge_pages.h"
#include "models/fused/arithmetic.h"
#include "models/fused/fused_engine.h"
#include "models/systems/registry.h"
#include "sharding/optimizer.h"
#include "sharding/schedule.h"
#include "trainer/run/samples.h"

namespace kt {
namespace {

constexpr int64_t kUsers = 7176, kItems = 10728, kFeatures = 15;

using benchmark::Counter;

/// What a core can do at most: 16 independent chains of multiply-adds.
__attribute__((target("avx512f"))) void multiply_adds(float* sums, int64_t n) {
  __m512 chain[16];
  for (int k = 0; k < 16; ++k) chain[k] = _mm512_loadu_ps(sums + 16 * k);
  const __m512 factor = _mm512_set1_ps(.999f);
  for (int64_t i = 0; i < n; ++i)
    for (int k = 0; k < 16; ++k) chain[k] = _mm512_fmadd_ps(chain[k], factor, factor);
  for (int k = 0; k < 16; ++k) _mm512_storeu_ps(sums + 16 * k, chain[k]);
}

void peak(benchmark::State& state) {
  if (best_simd_level() != SimdLevel::kAvx512) return state.SkipWithError("no AVX-512");
  std::vector<float> sums(256, 1.f);
  for (auto _ : state) multiply_adds(sums.data(), 1000);
  state.counters["flops"] = Counter(1000. * 16 * 16 * 2, Counter::kIsIterationInvariantRate);
}
BENCHMARK(peak);

void read_memory(benchmark::State& state) {
  const std::vector<float> data(state.range(0) / sizeof(float), 1.f);
  for (auto _ : state) {
    __m256 sum[4] = {};
    for (size_t k = 0; k + 32 <= data.size(); k += 32)
      for (size_t j = 0; j < 4; ++j)
        sum[j] = _mm256_add_ps(sum[j], _mm256_loadu_ps(data.data() + k + 8 * j));
    benchmark::DoNotOptimize(sum);
  }
  state.SetBytesProcessed(state.iterations() * state.range(0));
}
BENCHMARK(read_memory)->Name("read/L1")->Arg(32 << 10);
BENCHMARK(read_memory)->Name("read/L2")->Arg(1 << 20);
BENCHMARK(read_memory)->Name("read/L3")->Arg(16 << 20);
BENCHMARK(read_memory)->Name("read/memory")->Arg(1 << 30);

/// `ncf` at full width, with random weights.
struct Ncf {
  explicit Ncf(Form form)
      : model(make_default_system("ncf",
                                  {.users = kUsers, .items = kItems, .columns = {0, kFeatures, 0}})
                  .graph),
        engine(make_fused_engine(model, {}, form, best_simd_level())) {
    for (const ParameterSpec& spec : model.parameters()) {
      AlignedFloats values(spec.size());
      for (float& value : values) value = .1f * draw();
      if (spec.kind == ParameterKind::kDense)
        dense.insert(dense.end(), values.begin(), values.end());
      else
        tables.push_back(values);
    }
    gradients = tables;
    dense_gradient.resize(dense.size());
    features.resize(kItems * kFeatures, .5f);
    engine->set_dense(dense);
    for (const Side side : {Side::kUser, Side::kItem}) {
      const int64_t n = count(side);
      rows[side == Side::kItem].resize(n);
      std::iota(rows[side == Side::kItem].begin(), rows[side == Side::kItem].end(), 0);
      parts[side == Side::kItem].resize(n * engine->part_width(side));
      engine->forward_ids(side, ids(side), parts[side == Side::kItem].data());
    }
  }
  float draw() { return static_cast<float>(2 * to_uniform(mix(++seed)) - 1); }
  static int64_t count(Side side) { return side == Side::kUser ? kUsers : kItems; }
  IdBatch ids(Side side) const {
    const int s = side == Side::kItem;
    return {.n = count(side),
            .row = rows[s].data(),
            .tables = {tables[s].data()},
            .columns = s == 1 ? features.data() : nullptr};
  }

  Layers model;
  std::unique_ptr<Engine> engine;
  uint64_t seed = 1;
  std::vector<float> dense, dense_gradient, features;
  std::vector<AlignedFloats> tables, gradients;
  std::vector<int32_t> rows[2];
  AlignedFloats parts[2];
};

/// Leaves of 256 rows, as at a global batch of 16,384: users of one shard, items anywhere.
void train_rows(benchmark::State& state) {
  const Form form = state.range(0) ? Form::kIds : Form::kRows;
  Ncf ncf(form);
  constexpr int64_t kRows = 256;
  std::vector<int32_t> user(kRows), item(kRows);
  std::vector<float> label(kRows, 1.f);
  std::vector<uint32_t> key(kRows);
  for (int64_t r = 0; r < kRows; ++r) {
    user[r] = static_cast<int32_t>(mix(r) % 112);
    item[r] = static_cast<int32_t>(mix(r + 999) % kItems);
    key[r] = static_cast<uint32_t>(mix(r + 5));
  }
  AlignedFloats user_gradients(ncf.parts[0].size()),
      item_gradients(kRows * ncf.engine->part_width(Side::kItem));
  for (auto _ : state)
    benchmark::DoNotOptimize(
        ncf.engine->train_rows({.n = kRows,
                                .user_parts = ncf.parts[0].data(),
                                .item_parts = ncf.parts[1].data(),
                                .user = user.data(),
                                .item = item.data(),
                                .item_id = item.data(),
                                .columns = {nullptr, ncf.features.data(), nullptr},
                                .target = label.data(),
                                .dropout_key = key.data()},
                               1e-4,
                               {.user_parts = user_gradients.data(),
                                .item_parts = item_gradients.data(),
                                .dense = ncf.dense_gradient.data()}));
  state.SetItemsProcessed(state.iterations() * kRows);
}
BENCHMARK(train_rows)->Name("train_rows/rows")->Arg(0);
BENCHMARK(train_rows)->Name("train_rows/ids")->Arg(1);

void forward_ids(benchmark::State& state) {
  const Side side = state.range(0) ? Side::kItem : Side::kUser;
  Ncf ncf(Form::kIds);
  for (auto _ : state)
    ncf.engine->forward_ids(side, ncf.ids(side), ncf.parts[side == Side::kItem].data());
  state.SetItemsProcessed(state.iterations() * Ncf::count(side));
}
BENCHMARK(forward_ids)->Name("forward_ids/users")->Arg(0);
BENCHMARK(forward_ids)->Name("forward_ids/items")->Arg(1);

void backward_ids(benchmark::State& state) {
  const Side side = state.range(0) ? Side::kItem : Side::kUser;
  Ncf ncf(Form::kIds);
  for (auto _ : state)
    ncf.engine->backward_ids(side, ncf.ids(side), ncf.parts[side == Side::kItem].data(),
                             {.tables = {ncf.gradients[side == Side::kItem].data()},
                              .dense = ncf.dense_gradient.data()});
  state.SetItemsProcessed(state.iterations() * Ncf::count(side));
}
BENCHMARK(backward_ids)->Name("backward_ids/users")->Arg(0);
BENCHMARK(backward_ids)->Name("backward_ids/items")->Arg(1);

void score(benchmark::State& state) {
  Ncf ncf(Form::kIds);
  constexpr int64_t kPairs = 3327;
  std::vector<int32_t> user(kPairs, 7), item(kPairs);
  for (int64_t k = 0; k < kPairs; ++k) item[k] = static_cast<int32_t>(3 * k);
  std::vector<float> out(kPairs);
  for (auto _ : state)
    ncf.engine->predict_rows({.n = kPairs,
                              .user_parts = ncf.parts[0].data(),
                              .item_parts = ncf.parts[1].data(),
                              .user = user.data(),
                              .item = item.data(),
                              .item_id = item.data(),
                              .columns = {nullptr, ncf.features.data(), nullptr}},
                             out.data());
  state.SetItemsProcessed(state.iterations() * kPairs);
}
BENCHMARK(score)->Name("predict_rows");

void update(benchmark::State& state) {
  const int64_t rows = state.range(0);
  AlignedFloats value(rows * 32, .1f), gradient(rows * 32, .01f), first(rows * 32, .01f),
      second(rows * 32, .01f);
  const UpdateFactors factors = update_factors({}, 1e-3, 10);
  for (auto _ : state)
    optimizer_update(factors, 1, best_simd_level(),
                     {.rows = rows,
                      .cols = 32,
                      .touched = nullptr,
                      .value = value.data(),
                      .gradient = gradient.data(),
                      .slot1 = first.data(),
                      .slot2 = second.data()});
  state.SetItemsProcessed(state.iterations() * rows * 32);
  state.SetBytesProcessed(state.iterations() * rows * 32 * 7 * 4);  // reads 4, writes 3
}
BENCHMARK(update)->Name("adam/L2")->Arg(2048);
BENCHMARK(update)->Name("adam/all")->Arg(kUsers + kItems);

/// The samples of a step: their groups in the epoch's order, and the reads.
void draw(benchmark::State& state) {
  constexpr int64_t kRows = 180'000, kGroup = EpochOrder::kGroup, kTogether = 32;
  Samples samples(kRows);
  const EpochOrder order = epoch_order(kRows, 1, 0, 0);
  int64_t position = 0, sum = 0;
  for (auto _ : state) {
    int64_t place[kTogether];
    for (int64_t& p : place) {
      p = order.group(position++ % (kRows / kGroup));
      __builtin_prefetch(&samples[p]);
    }
    for (const int64_t p : place)
      for (int64_t k = 0; k < kGroup; ++k) sum += samples[p + k].item;
  }
  benchmark::DoNotOptimize(sum);
  state.SetItemsProcessed(state.iterations() * kTogether * kGroup);
}
BENCHMARK(draw);

}  // namespace
}  // namespace kt

BENCHMARK_MAIN();
