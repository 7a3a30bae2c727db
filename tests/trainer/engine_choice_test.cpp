// Who computes a run's model where the configuration leaves it open.
#include <gmock/gmock.h>

#include "io/config/reader.h"
#include "launch/base/errors.h"
#include "trainer/run/engine_choice.h"

namespace kt {
namespace {

Config config_of(const std::vector<std::string>& overrides) {
  const ConfigReading reading = read_config("", "toy.yaml", overrides, model_declarations());
  EXPECT_THAT(reading.faults, ::testing::IsEmpty());
  return reading.config;
}

struct Choice {
  EngineName engine;
  FormName form;
  bool operator==(const Choice&) const = default;
};

Choice resolved(const std::vector<std::string>& overrides, bool on_devices) {
  Config config = config_of(overrides);
  resolve_engine(config, on_devices);
  return {config.model.engine, config.model.form};
}

TEST(EngineChoice, IsFusedOnCpusWithIdsForLargeBatches) {
  const Choice rows{EngineName::kFused, FormName::kRows}, ids{EngineName::kFused, FormName::kIds};
  EXPECT_EQ(resolved({"train.global_batch=32"}, false), rows);
  EXPECT_EQ(resolved({"train.global_batch=511"}, false), rows);
  EXPECT_EQ(resolved({"train.global_batch=512"}, false), ids);
  EXPECT_EQ(resolved({"train.global_batch=32", "model.form=ids"}, false), ids);
  EXPECT_EQ(resolved({"train.global_batch=9999", "model.form=rows"}, false), rows);
}

TEST(EngineChoice, IsFusedOnDevicesTooUnlessThePrecisionIsLess) {
  const Choice ids{EngineName::kFused, FormName::kIds}, torch{EngineName::kTorch, FormName::kRows};
  EXPECT_EQ(resolved({"train.global_batch=9999"}, true), ids);
  EXPECT_EQ(resolved({"train.global_batch=9999", "parallel.reduce=fast", "parallel.precision=tf32"},
                     true),
            torch);
  EXPECT_EQ(resolved({"train.global_batch=9999", "model.engine=torch"}, true), torch);
  EXPECT_EQ(resolved({"train.global_batch=9999", "model.engine=torch"}, false), torch);
}

TEST(EngineChoice, IdsThroughLibtorchAreRefused) {
  Config ids = config_of({"model.form=ids", "parallel.reduce=fast", "parallel.precision=tf32"});
  EXPECT_THROW(resolve_engine(ids, true), UserError);
}

TEST(EngineChoice, OptionsAreThoseOfTheResolvedConfiguration) {
  for (const char* engine : {"auto", "fused", "torch"}) {
    for (const char* form : {"auto", "rows"}) {
      Config config = config_of({std::string("model.engine=") + engine,
                                 std::string("model.form=") + form, "train.global_batch=4096"});
      const EngineOptions open = engine_options(config);
      resolve_engine(config, false);
      const EngineOptions options = engine_options(config);
      EXPECT_EQ(open.kind, options.kind);
      EXPECT_EQ(open.form, options.form);
      EXPECT_EQ(options.kind == EngineKind::kTorch, config.model.engine == EngineName::kTorch);
      EXPECT_EQ(options.form == Form::kIds, config.model.form == FormName::kIds);
    }
  }
}

TEST(EngineChoice, SimdIsTheWidestOfTheCpuOrWhatIsAskedFor) {
  EXPECT_EQ(engine_options(config_of({})).simd, best_simd_level());
  EXPECT_EQ(engine_options(config_of({"parallel.simd=avx2"})).simd, SimdLevel::kAvx2);
  const Config wide = config_of({"parallel.simd=avx512"});
  if (best_simd_level() == SimdLevel::kAvx512) {
    EXPECT_EQ(engine_options(wide).simd, SimdLevel::kAvx512);
    return;
  }
  try {
    engine_options(wide);
    FAIL() << "this CPU has no AVX-512";
  } catch (const UserError& error) {
    EXPECT_THAT(error.what(), ::testing::HasSubstr("parallel.simd: got avx512, but this CPU"));
  }
}

}  // namespace
}  // namespace kt
