#pragma once

#include "sharding/optimizer.h"

/// `optimizer_update` and `SquaredNorm` (sharding/squared_norm.h), once a SIMD level (launch/base/simd.h).
namespace kt::avx2 {
void update_rows(const UpdateFactors& factors, float gradient_scale, const UpdatedRows& rows);
double squared_norm(const GradientRows& rows);
}
namespace kt::avx512 {
void update_rows(const UpdateFactors& factors, float gradient_scale, const UpdatedRows& rows);
double squared_norm(const GradientRows& rows);
}
