#include "models/fused/arithmetic.h"

namespace kt::fused {
namespace {

double operations_of(const Program& program) {
  int64_t operations = 0;
  for (int64_t k = 0; k < program.op_count; ++k) {
    const Op& op = program.ops[k];
    for (int32_t t = op.terms_begin; t < op.terms_end; ++t) {
      const Term& term = program.terms[t];
      operations += (term.x_gradient < 0 ? 4 : 6) * term.in * op.width;
    }
    if (op.bias >= 0) operations += 2 * op.width;
    if (op.kind == OpKind::kGather)
      operations += ((op.user_part >= 0) + (op.item_part >= 0)) * op.width;
  }
  return static_cast<double>(operations);
}

}  // namespace

Arithmetic arithmetic_of(const CompiledModel& model) {
  return {operations_of(model.users()), operations_of(model.items()), operations_of(model.rows())};
}

}  // namespace kt::fused
