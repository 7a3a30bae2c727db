#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

#include "launch/base/errors.h"

namespace kt {

/// The dense gradients of a step, one flat array, cut into buckets that are reduced one by one while backward
/// computes the next. Buckets are cut from the last parameter to the first, the order in which a backward pass
/// finishes them, and given out in this order whatever order the gradients are written in: the order of
/// collectives is the same on all ranks.
class GradientBuckets {
 public:
  /// What a link of 200 GB/s carries in the 5 us that a message costs, about what trainer/devices/device_catalogue.cpp has
  /// for GPUs: a smaller bucket is mostly latency, a larger one is begun late for nothing. Units: floats.
  static constexpr int64_t kSize = (int64_t{1} << 20) / static_cast<int64_t>(sizeof(float));

  /// Shapes: parameters [dense parameters] elements of each, in order. A bucket is full with at least `bucket_size`
  /// elements; a parameter is never cut.
  explicit GradientBuckets(std::span<const int64_t> parameters, int64_t bucket_size = kSize)
      : bucket_of_(parameters.size()) {
    int64_t end = 0;
    for (const int64_t size : parameters) end += size;
    for (size_t k = parameters.size(); k-- > 0;) {
      if (buckets_.empty() || buckets_.back().end - buckets_.back().begin >= bucket_size)
        buckets_.push_back({.begin = end, .end = end});
      buckets_.back().begin = end -= parameters[k];
      ++buckets_.back().parameters;
      bucket_of_[k] = buckets_.size() - 1;
    }
  }

  /// A new step: no gradient is written.
  void begin() {
    next_ = 0;
    for (Bucket& bucket : buckets_) bucket.missing = bucket.parameters;
  }
  /// The gradient of parameter k is written. Calls reduce(first element, elements) for each bucket that is now
  /// complete together with all buckets before it.
  template <class Reduce>
  void written(size_t k, const Reduce& reduce) {
    KT_CHECK(k < bucket_of_.size() && buckets_[bucket_of_[k]].missing > 0,
             "dense gradient {} is written again", k);
    --buckets_[bucket_of_[k]].missing;
    for (; next_ < buckets_.size() && buckets_[next_].missing == 0; ++next_)
      reduce(buckets_[next_].begin, buckets_[next_].end - buckets_[next_].begin);
  }
  /// Whether every bucket has been given out.
  bool complete() const { return next_ == buckets_.size(); }

 private:
  struct Bucket {
    int64_t begin, end;
    int64_t parameters = 0, missing = 0;
  };
  std::vector<Bucket> buckets_;
  std::vector<size_t> bucket_of_;
  size_t next_ = 0;
};

}  // namespace kt
