#include "trainer/run/engine_choice.h"

#include "launch/base/errors.h"

namespace kt {

void resolve_engine(Config& config, bool on_devices) {
  auto& model = config.model;
  const bool fp32 = config.parallel.precision == Precision::kFp32;
  if (model.engine == EngineName::kAuto)
    model.engine = on_devices && !fp32 ? EngineName::kTorch : EngineName::kFused;
  if (model.engine == EngineName::kTorch && model.form == FormName::kIds)
    user_error(
        "model.form: got ids, but this run computes through libtorch, for parallel.precision: "
        "expected rows or auto; or set parallel.precision=fp32 for the fused engine");
  // Below this a step has about as many ids as rows, and both forms take the same time (docs/speed.md).
  constexpr int64_t kIdsFrom = 512;
  if (model.form == FormName::kAuto)
    model.form = model.engine == EngineName::kFused && config.train.global_batch >= kIdsFrom
                     ? FormName::kIds
                     : FormName::kRows;
}

EngineOptions engine_options(const Config& config) {
  Config resolved = config;
  resolve_engine(resolved, false);
  const Simd simd = config.parallel.simd;
  if (simd == Simd::kAvx512 && best_simd_level() != SimdLevel::kAvx512)
    user_error(
        "parallel.simd: got avx512, but this CPU has no AVX-512 (F, BW, DQ, VL): set "
        "parallel.simd=auto; the bits are the same");
  return {
      .kind = resolved.model.engine == EngineName::kTorch ? EngineKind::kTorch : EngineKind::kFused,
      .form = resolved.model.form == FormName::kIds ? Form::kIds : Form::kRows,
      .simd = simd == Simd::kAuto     ? best_simd_level()
              : simd == Simd::kAvx512 ? SimdLevel::kAvx512
                                      : SimdLevel::kAvx2};
}

}  // namespace kt
