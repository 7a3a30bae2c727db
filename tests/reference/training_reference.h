#pragma once

#include <cmath>
#include <cstdint>
#include <vector>

#include "tests/reference/ncf_reference.h"

/// Training of the model `ncf` as one process does it: the whole batch at once, in double.
namespace kt::reference {

struct AdamOptions {
  double rate = 1e-3, beta1 = .9, beta2 = .999, epsilon = 1e-8;
  double clip_norm = 0;  ///< of the gradient of all arrays; 0: off
};

struct TrainingRow {
  int64_t user = 0, item = 0;
  double label = 0;
  std::vector<double> dropout;  ///< [32]
};

/// Shapes: user [users, 32], video [items, 32], features [items, feature_count].
struct NcfModel {
  std::vector<double> user, video;
  std::vector<DenseLayer> layers;  ///< as in NcfBatch
  int64_t feature_count = 0;
  std::vector<double> features;

  std::vector<std::vector<double>*> arrays() {
    std::vector<std::vector<double>*> all{&user, &video};
    for (DenseLayer& layer : layers) {
      all.push_back(&layer.weight);
      all.push_back(&layer.bias);
    }
    return all;
  }
};

/// The rows' embeddings and features, side by side.
inline NcfBatch batch_of(const NcfModel& model, const std::vector<TrainingRow>& rows) {
  NcfBatch batch;
  batch.rows = static_cast<int64_t>(rows.size());
  batch.features = model.feature_count;
  batch.layers = model.layers;
  const auto append = [](std::vector<double>& to, const std::vector<double>& from) {
    to.insert(to.end(), from.begin(), from.end());
  };
  for (const TrainingRow& row : rows) {
    append(batch.user, row_of(model.user, row.user, kWidth));
    append(batch.video, row_of(model.video, row.item, kWidth));
    append(batch.content, row_of(model.features, row.item, model.feature_count));
    append(batch.dropout, row.dropout);
    batch.label.push_back(row.label);
  }
  return batch;
}

class Training {
 public:
  Training(NcfModel start, AdamOptions adam) : model(std::move(start)), adam_(adam) {
    for (const std::vector<double>* array : model.arrays()) {
      first_.emplace_back(array->size(), 0.0);
      second_.emplace_back(array->size(), 0.0);
    }
  }

  /// Returns the sum of squared errors before the update.
  double step(const std::vector<TrainingRow>& rows) {
    NcfGradients g = ncf_gradients(batch_of(model, rows), 1 / static_cast<double>(rows.size()));
    NcfModel gradient;
    gradient.user.assign(model.user.size(), 0);
    gradient.video.assign(model.video.size(), 0);
    gradient.layers = g.layers;
    for (size_t k = 0; k < rows.size(); ++k) {
      for (int64_t c = 0; c < kWidth; ++c) {
        const int64_t from = static_cast<int64_t>(k) * kWidth + c;
        gradient.user[rows[k].user * kWidth + c] += g.user[from];
        gradient.video[rows[k].item * kWidth + c] += g.video[from];
      }
    }
    update(gradient);
    return g.loss;
  }

  NcfModel model;

 private:
  void update(NcfModel& gradient) {
    double squares = 0;
    for (const std::vector<double>* array : gradient.arrays())
      for (const double x : *array) squares += x * x;
    const double norm = std::sqrt(squares);
    const double scale = adam_.clip_norm > 0 && norm > adam_.clip_norm ? adam_.clip_norm / norm : 1;

    ++steps_;
    for (size_t a = 0; a < first_.size(); ++a) {
      std::vector<double>& value = *model.arrays()[a];
      for (size_t k = 0; k < value.size(); ++k) {
        const double x = scale * (*gradient.arrays()[a])[k];
        first_[a][k] = adam_.beta1 * first_[a][k] + (1 - adam_.beta1) * x;
        second_[a][k] = adam_.beta2 * second_[a][k] + (1 - adam_.beta2) * x * x;
        const double m = first_[a][k] / (1 - std::pow(adam_.beta1, steps_));
        const double v = second_[a][k] / (1 - std::pow(adam_.beta2, steps_));
        value[k] -= adam_.rate * m / (std::sqrt(v) + adam_.epsilon);
      }
    }
  }

  AdamOptions adam_;
  double steps_ = 0;
  std::vector<std::vector<double>> first_, second_;
};

}  // namespace kt::reference
