#pragma once

#include <array>
#include <cstddef>
#include <string_view>

#include "launch/base/errors.h"

/// What the configuration chooses among. `words` of an enumeration are what its values are called there, in the order
/// of the values: whatever reads, writes or describes one takes them from here.
namespace kt {

enum class ValidationKind { kRandom, kTemporal };
constexpr auto words(ValidationKind) {
  return std::to_array<std::string_view>({"random", "temporal"});
}

enum class VideoType { kAny, kNormal };
constexpr auto words(VideoType) { return std::to_array<std::string_view>({"any", "normal"}); }

enum class Visibility { kAny, kPublic };
constexpr auto words(Visibility) { return std::to_array<std::string_view>({"any", "public"}); }

/// What becomes of the rows of one user and video.
enum class Repeats { kKeep, kFirst, kSum, kMean };
constexpr auto words(Repeats) {
  return std::to_array<std::string_view>({"keep", "first", "sum", "mean"});
}

enum class MissingValue { kZero, kMedian };
constexpr auto words(MissingValue) { return std::to_array<std::string_view>({"zero", "median"}); }

/// Who computes the model.
enum class EngineName { kAuto, kFused, kTorch };
constexpr auto words(EngineName) {
  return std::to_array<std::string_view>({"auto", "fused", "torch"});
}

/// What of the model is computed once for each user and item of a step (models/fused/compiler.h).
enum class FormName { kAuto, kRows, kIds };
constexpr auto words(FormName) { return std::to_array<std::string_view>({"auto", "rows", "ids"}); }

enum class OptimizerName { kAdam, kAdamW, kSgd };
constexpr auto words(OptimizerName) {
  return std::to_array<std::string_view>({"adam", "adamw", "sgd"});
}

enum class ScheduleName { kConstant, kLinear, kCosine };
constexpr auto words(ScheduleName) {
  return std::to_array<std::string_view>({"constant", "linear", "cosine"});
}

/// A metric of the validation rows that a run may select by; errors are better when smaller.
enum class SelectionMetric { kNone, kMse, kMae, kMseClipped, kMaeClipped, kGauc, kXauc };
constexpr auto words(SelectionMetric) {
  return std::to_array<std::string_view>(
      {"none", "mse", "mae", "mse_clipped", "mae_clipped", "gauc", "xauc"});
}

enum class OnBadStep { kStop, kSkip, kRewind };
constexpr auto words(OnBadStep) {
  return std::to_array<std::string_view>({"stop", "skip", "rewind"});
}

enum class Backend { kAuto, kMpi, kNccl };
constexpr auto words(Backend) { return std::to_array<std::string_view>({"auto", "mpi", "nccl"}); }

enum class Reduce { kExact, kFast };
constexpr auto words(Reduce) { return std::to_array<std::string_view>({"exact", "fast"}); }

enum class Simd { kAuto, kAvx2, kAvx512 };
constexpr auto words(Simd) { return std::to_array<std::string_view>({"auto", "avx2", "avx512"}); }

enum class Precision { kFp32, kTf32, kBf16 };
constexpr auto words(Precision) {
  return std::to_array<std::string_view>({"fp32", "tf32", "bf16"});
}

enum class EvaluatedCheckpoint { kLast, kBest };
constexpr auto words(EvaluatedCheckpoint) {
  return std::to_array<std::string_view>({"last", "best"});
}

/// What the lists of the ranking metrics are made of.
enum class EvaluationCandidates { kObserved, kCatalogue };
constexpr auto words(EvaluationCandidates) {
  return std::to_array<std::string_view>({"observed", "catalogue"});
}

template <class E>
concept ConfigEnum = requires {
  words(E{});
};

/// The word the configuration has for a value: "random", "adamw", "gauc", ...
template <ConfigEnum E>
std::string_view name_of(E value) {
  const auto all = words(value);
  const auto at = static_cast<size_t>(value);
  KT_CHECK(at < all.size(), "an enumerator without a word: {}", at);
  return all[at];
}

}  // namespace kt
