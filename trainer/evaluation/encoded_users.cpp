#include "trainer/evaluation/encoded_users.h"

#include <algorithm>

#include "models/all_items/hidden_layers.h"
#include "models/systems/autoencoder.h"
#include "trainer/run/history.h"

namespace kt {

std::vector<float> encode_users(const Problem& problem, const Parameters& parameters,
                                Communicator& comm) {
  const EncoderFit& fit = *problem.system.encoder;
  const SparseRows targets = encoder_targets(problem, parameters, comm);
  const std::vector<float> encoder = parameters.gather_items(parameters.find(kEncoder), comm);
  all_items::HiddenLayers hidden(fit.hidden, 0, 0, parameters.simd);
  const std::span<const float> weights =
      std::span(parameters.dense)
          .subspan(parameters.find(kEncoderBias).dense_offset, hidden.size());
  const int64_t first = hidden.first_width(), last = hidden.last_width();
  const auto add = all_items::kernels(parameters.simd).add;
  std::vector<float> encoded(targets.rows() * last);
  std::vector<float> sums;
  for (int64_t begin = 0; begin < targets.rows(); begin += all_items::kPanelRows) {
    const int64_t users = std::min(all_items::kPanelRows, targets.rows() - begin);
    sums.assign(users * first, 0);
    for (int64_t user = 0; user < users; ++user) {
      const auto items = targets.items_of(begin + user);
      const auto values = targets.values_of(begin + user);
      for (size_t k = 0; k < items.size(); ++k)
        add(encoder.data() + items[k] * first, fit.input_of(values[k]), first,
            sums.data() + user * first);
    }
    hidden.forward(users, sums, weights, {});
    for (int64_t user = 0; user < users; ++user)
      std::copy_n(hidden.output().begin() + user * all_items::padded(last), last,
                  encoded.begin() + (begin + user) * last);
  }
  return encoded;
}

}  // namespace kt
