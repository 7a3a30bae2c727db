#include "sharding/parameters.h"

#include <xxhash.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "launch/base/errors.h"
#include "sharding/gather_shards.h"

namespace kt {

Parameters::Parameters(std::vector<ArraySpec> specs, std::span<const int64_t> users_per_shard,
                       int64_t items, World world, Holding holding, const Optimizer& optimizer,
                       ParameterUse use)
    : shards_(shards_of_rank(static_cast<int64_t>(users_per_shard.size()), world)),
      shard_count_(static_cast<int64_t>(users_per_shard.size())),
      holding_(holding),
      item_begin_(even_blocks(items, shard_count_)),
      held_items_(holding == Holding::kReplica
                      ? Range{0, items}
                      : Range{item_begin_[shards_.begin], item_begin_[shards_.end]}),
      optimizer_(optimizer) {
  const bool trains = use == ParameterUse::kTraining;
  for (int64_t shard = shards_.begin; trains && shard < shards_.end; ++shard)
    user_touched.resize(user_touched.size() + users_per_shard[shard], 0);
  if (trains) item_touched.resize(held_items_.size(), 0);
  for (ArraySpec& spec : specs) {
    ParameterArray array;
    array.spec = std::move(spec);
    const ArrayKind kind = array.spec.kind;
    if (kind == ArrayKind::kUserTable || kind == ArrayKind::kUserColumns) {
      array.block_begin.assign(1, 0);
      for (const int64_t users : users_per_shard)
        array.block_begin.push_back(array.block_begin.back() + users);
      KT_CHECK(array.block_begin.back() == array.spec.rows, "{}", array.spec.name);
    } else {
      array.block_begin = even_blocks(array.spec.rows, shard_count_);
    }
    array.owned = {array.block_begin[shards_.begin], array.block_begin[shards_.end]};
    KT_CHECK(kind != ArrayKind::kItemTable || array.spec.rows == items, "{}", array.spec.name);
    const bool whole =
        array.spec.is_whole() || (kind == ArrayKind::kItemTable && holding == Holding::kReplica);
    array.held = whole ? Range{0, array.spec.rows} : array.owned;
    const auto size = static_cast<size_t>(array.held.size() * array.spec.cols);
    array.value.resize(size);
    if (trains && kind == ArrayKind::kSharedRows) array.touched.resize(array.spec.rows, 0);
    if (trains && array.spec.has_gradient()) {
      array.gradient.resize(size);
      for (int slot = 0; slot < optimizer_slots(optimizer); ++slot) array.slots[slot].resize(size);
    }
    if (array.spec.kind == ArrayKind::kDense) {
      array.dense_offset = static_cast<int64_t>(dense.size());
      dense.resize(dense.size() + static_cast<size_t>(array.spec.rows * array.spec.cols));
    }
    arrays.push_back(std::move(array));
  }
}

const ParameterArray& Parameters::find(const std::string& name) const {
  const auto found = std::ranges::find_if(
      arrays, [&](const ParameterArray& array) { return array.spec.name == name; });
  KT_CHECK(found != arrays.end(), "no array {}", name);
  return *found;
}
ParameterArray& Parameters::find(const std::string& name) {
  return const_cast<ParameterArray&>(std::as_const(*this).find(name));
}

std::vector<float> Parameters::gather_items(const ParameterArray& array, Communicator& comm) const {
  if (holding_ == Holding::kReplica) return {array.value.begin(), array.value.end()};
  return gather_blocks<float>(comm, array.value, item_begin_, array.spec.cols);
}

int64_t Parameters::count() const {
  int64_t count = 0;
  for (const ParameterArray& array : arrays)
    if (!is_columns(array.spec.kind) && !array.spec.computed)
      count += array.spec.rows * array.spec.cols;
  return count;
}

void Parameters::update(double learning_rate, int64_t step, float gradient_scale,
                        ThreadPool& pool) {
  // Rows of a piece: enough work to be worth giving away.
  constexpr int64_t kPieceRows = 512;
  struct Piece {
    ParameterArray* array;
    Range rows;
  };
  std::vector<Piece> pieces;
  for (ParameterArray& array : arrays)
    for (int64_t begin = 0; array.spec.trained && begin < array.held.size(); begin += kPieceRows)
      pieces.push_back({&array, {begin, std::min(begin + kPieceRows, array.held.size())}});
  const UpdateFactors factors = update_factors(optimizer_, learning_rate, step);
  pool.parallel_for(static_cast<int64_t>(pieces.size()), [&](int64_t k, int) {
    const auto [array, rows] = pieces[k];
    const int64_t cols = array->spec.cols, begin = rows.begin * cols;
    const uint8_t* has_gradient = touched(*array);
    const auto slot = [&](int n) {
      return array->slots[n].empty() ? nullptr : array->slots[n].data() + begin;
    };
    optimizer_update(factors, gradient_scale, simd,
                     {.rows = rows.size(),
                      .cols = cols,
                      .touched = has_gradient ? has_gradient + rows.begin : nullptr,
                      .value = array->value.data() + begin,
                      .gradient = array->gradient.data() + begin,
                      .slot1 = slot(0),
                      .slot2 = slot(1)});
  });
}

bool Parameters::penalizes(ArrayKind kind) const {
  return std::ranges::any_of(arrays, [&](const ParameterArray& array) {
    return array.spec.kind == kind && array.spec.row_penalty > 0;
  });
}

void Parameters::penalize(ArrayKind kind, std::span<const int32_t> rows,
                          std::span<const int32_t> counts, double scale) {
  for (ParameterArray& array : arrays) {
    if (array.spec.kind != kind || array.spec.row_penalty == 0) continue;
    const int64_t cols = array.spec.cols;
    for (const int32_t row : rows) {
      const auto factor = static_cast<float>(2 * array.spec.row_penalty * scale * counts[row]);
      for (int64_t c = row * cols; c < (row + 1) * cols; ++c)
        array.gradient[c] += factor * array.value[c];
    }
  }
}

void Parameters::forget_gradients() {
  std::ranges::fill(user_touched, uint8_t{0});
  std::ranges::fill(item_touched, uint8_t{0});
  for (ParameterArray& array : arrays) std::ranges::fill(array.touched, uint8_t{0});
}

void Parameters::fill_gradients() {
  for (ParameterArray& array : arrays) {
    if (array.gradient.empty()) continue;
    const uint8_t* has_gradient = touched(array);
    for (int64_t row = 0; has_gradient && row < array.held.size(); ++row)
      if (!has_gradient[row])
        std::fill_n(array.gradient.begin() + row * array.spec.cols, array.spec.cols, 0.f);
  }
  std::ranges::fill(user_touched, uint8_t{1});
  std::ranges::fill(item_touched, uint8_t{1});
  for (ParameterArray& array : arrays) std::ranges::fill(array.touched, uint8_t{1});
}

void Parameters::take_dense_gradients(std::span<const float> gradients) {
  for (ParameterArray& array : arrays)
    if (array.spec.kind == ArrayKind::kDense)
      std::copy_n(gradients.begin() + array.dense_offset, array.gradient.size(),
                  array.gradient.begin());
}

void Parameters::end_training() {
  // Not `= {}`, which keeps the memory.
  for (ParameterArray& array : arrays) {
    array.gradient = AlignedFloats();
    array.touched = std::vector<uint8_t>();
    for (AlignedFloats& slot : array.slots) slot = AlignedFloats();
  }
  user_touched = std::vector<uint8_t>();
  item_touched = std::vector<uint8_t>();
}

void Parameters::copy_dense() {
  for (const ParameterArray& array : arrays)
    if (array.spec.kind == ArrayKind::kDense)
      std::ranges::copy(array.value, dense.begin() + array.dense_offset);
}

double Parameters::squared_gradient_norm(const ParameterArray& array, int64_t block) const {
  if (array.gradient.empty()) return 0;
  const Range rows = block_rows(array, block);
  if (rows.size() == 0) return 0;
  const uint8_t* has_gradient = touched(array);
  const int64_t first = rows.begin - array.held.begin;
  return squared_norm(simd, {.rows = rows.size(),
                             .cols = array.spec.cols,
                             .touched = has_gradient ? has_gradient + first : nullptr,
                             .gradient = array.gradient.data() + first * array.spec.cols});
}

void Parameters::squared_gradient_norms(std::span<double> norms, ThreadPool& pool) {
  KT_CHECK(std::ssize(norms) == shards_.size());
  pool.parallel_for(shards_.size(), [&](int64_t k, int) {
    norms[k] = 0;
    for (const ParameterArray& array : arrays)
      norms[k] += squared_gradient_norm(array, shards_.begin + k);
  });
}

std::string Parameters::weights_hash(Communicator& comm) {
  int64_t width = 0;
  for (const ParameterArray& array : arrays) width += is_columns(array.spec.kind) ? 0 : 2;
  std::vector<uint64_t> own;
  for (int64_t block = shards_.begin; block < shards_.end; ++block) {
    for (ParameterArray& array : arrays) {
      if (is_columns(array.spec.kind)) continue;
      const std::span<float> values = array.rows(array.value, block_rows(array, block));
      const XXH128_hash_t hash = XXH3_128bits(values.data(), values.size_bytes());
      own.push_back(hash.high64);
      own.push_back(hash.low64);
    }
  }
  const std::vector<uint64_t> all = gather_shards<uint64_t>(comm, own, shard_count_, width);
  const XXH128_hash_t hash = XXH3_128bits(all.data(), all.size() * sizeof(uint64_t));
  return fmt::format("{:016x}{:016x}", hash.high64, hash.low64);
}

bool Parameters::finite() const {
  const auto all_finite = [](const AlignedFloats& data) {
    return std::ranges::all_of(data, [](float x) { return std::isfinite(x); });
  };
  return std::ranges::all_of(arrays, [&](const ParameterArray& array) {
    return all_finite(array.value) && all_finite(array.slots[0]) && all_finite(array.slots[1]);
  });
}

}  // namespace kt
