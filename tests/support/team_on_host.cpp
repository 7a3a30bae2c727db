#include "tests/support/team_on_host.h"

#include <memory>
#include <vector>

#include "launch/base/flush_small.h"
#include "models/fused/team_kernels.h"

namespace kt {
namespace {

using namespace fused;

template <bool kBackwards>
constexpr Team kTeam{.backwards = kBackwards};

template <bool kBackwards>
void forward(const Program& program, const float* weights, const IdArguments& ids,
             float* workspace) {
  const FlushSmall flush;
  const auto scratch = std::make_unique<team::Scratch>();
  for (int64_t first = 0; first < ids.n; first += kBlockRows)
    forward_ids(kTeam<kBackwards>, program, weights, ids, first, workspace, *scratch);
}

template <bool kBackwards>
void backward(const Program& program, const float* weights, const IdArguments& ids,
              float* workspace) {
  const FlushSmall flush;
  const auto scratch = std::make_unique<team::Scratch>();
  backward_ids(kTeam<kBackwards>, program, weights, ids, workspace, *scratch);
}

template <bool kBackwards>
double train(const Program& program, const Pass& pass, const float* weights,
             const RowArguments& rows, float* workspace) {
  const FlushSmall flush;
  const auto scratch = std::make_unique<team::Scratch>();
  // A team leaves the gradients of users' parts row by row.
  const int64_t width = program.user_part_width;
  std::vector<float> user_rows(rows.n * width);
  RowArguments to = rows;
  to.user_part_gradients = user_rows.data();
  double loss = 0;
  train_rows(kTeam<kBackwards>, program, pass, weights, to, workspace, *scratch, &loss);
  for (int64_t k = pass.backward_begin; k < pass.backward_end; ++k) {
    const Op& op = program.ops[k];
    if (op.kind != OpKind::kGather || op.user_part < 0 || op.y_gradient < 0) continue;
    for (int64_t r = 0; r < rows.n; ++r)
      for (int64_t c = op.user_part; c < op.user_part + padded(op.width); ++c)
        rows.user_part_gradients[rows.user[r] * width + c] += user_rows[r * width + c];
  }
  return loss;
}

template <bool kBackwards>
void predict(const Program& program, const float* weights, const RowArguments& rows,
             float* workspace) {
  const FlushSmall flush;
  const auto scratch = std::make_unique<team::Scratch>();
  for (int64_t first = 0; first < rows.n; first += kBlockRows)
    predict_rows(kTeam<kBackwards>, program, weights, rows, first, workspace, *scratch);
}

}  // namespace

const Kernels kTeamKernels{forward<false>, backward<false>, train<false>, predict<false>};
const Kernels kBackwardsTeamKernels{forward<true>, backward<true>, train<true>, predict<true>};

}  // namespace kt
