#include "models/fused/arithmetic.h"

namespace kt::fused {
namespace {

void add_term(Work& work, const Term& term, int64_t width) {
  const auto weights = static_cast<double>(term.in * width);
  work.forward += 2 * weights;
  work.gradients += 2 * weights;
  if (term.x_gradient >= 0) work.backward += 2 * weights;
  work.weights += weights;
  work.inputs += static_cast<double>(padded(term.in));
}

Work work_of(const Program& program) {
  Work work;
  for (int64_t k = 0; k < program.op_count; ++k) {
    const Op& op = program.ops[k];
    const auto width = static_cast<double>(op.width);
    for (int32_t t = op.terms_begin; t < op.terms_end; ++t)
      add_term(work, program.terms[t], op.width);
    if (op.bias >= 0) work.forward += width, work.gradients += width, work.weights += width;
    if (op.bias >= 0 || op.terms_end > op.terms_begin)
      work.slopes += static_cast<double>(padded(op.width));
    if (op.kind == OpKind::kPairDots) {
      const double products = width * static_cast<double>(op.field_width);
      work.forward += 2 * products;
      if (op.a_gradient >= 0) work.backward += 4 * products;
    }
    if (op.kind == OpKind::kGather)
      work.forward += ((op.user_part >= 0) + (op.item_part >= 0)) * width;
  }
  return work;
}

}  // namespace

Arithmetic arithmetic_of(const CompiledModel& model) {
  return {work_of(model.users()), work_of(model.items()), work_of(model.rows()),
          static_cast<double>(model.packed_size())};
}

}  // namespace kt::fused
