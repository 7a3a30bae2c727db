#pragma once

#include <functional>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "trainer/evaluation/predictor.h"

/// Predictors that say what a test wants.
namespace kt {

using Score = std::function<float(int32_t user, int32_t item)>;

class Says final : public Predictor {
 public:
  explicit Says(Score score) : score_(std::move(score)) {}
  void predict(const Pairs& pairs, ThreadPool&, std::span<float> out) const override {
    for (size_t list = 0; list < pairs.user.size(); ++list)
      for (int64_t i = pairs.offsets[list]; i < pairs.offsets[list + 1]; ++i)
        out[i] = score_(pairs.user[list], pairs.item[i]);
  }

 private:
  Score score_;
};

inline std::vector<std::unique_ptr<Predictor>> predictors(const std::vector<Score>& scores) {
  std::vector<std::unique_ptr<Predictor>> made;
  for (const Score& score : scores) made.push_back(std::make_unique<Says>(score));
  return made;
}

inline std::vector<float> predict(const Predictor& predictor, const Pairs& pairs) {
  ThreadPool pool(2);
  std::vector<float> out(pairs.size());
  predictor.predict(pairs, pool, out);
  return out;
}

}  // namespace kt
