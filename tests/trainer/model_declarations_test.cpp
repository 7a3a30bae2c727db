// The configuration knows the models by their declarations alone: that these are sound, and that the files of the
// project are.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "io/config/reader.h"
#include "io/config/writers.h"
#include "models/systems/registry.h"

namespace kt {
namespace {

namespace fs = std::filesystem;
using ::testing::IsEmpty;

ConfigReading read(const std::string& text, const std::vector<std::string>& overrides = {}) {
  return read_config(text, "toy.yaml", overrides, model_declarations());
}

TEST(ModelDeclarations, EveryModelAndItsDefaultsAreAccepted) {
  std::string all;
  for (const ModelDeclaration& model : model_declarations()) {
    const ConfigReading first = read("", {"model.name=" + model.name});
    EXPECT_THAT(first.faults, IsEmpty());
    // A default out of its range, or a path that two keys have, does not read back.
    const ConfigReading second = read(to_yaml(first.config));
    EXPECT_THAT(second.faults, IsEmpty()) << to_yaml(first.config);
    EXPECT_EQ(to_json(second.config), to_json(first.config));
    EXPECT_FALSE(model.about.empty());
    for (const OptionDeclaration& option : model.options) EXPECT_FALSE(option.text.empty());
    all += (all.empty() ? "" : " or ") + model.name;
  }
  const ConfigReading unknown = read("", {"model.name=unheard-of"});
  ASSERT_EQ(unknown.faults.size(), 1u);
  EXPECT_TRUE(unknown.faults[0].ends_with("expected " + all)) << unknown.faults[0];
  EXPECT_EQ(read("").config.model.name, "ncf");
}

TEST(ModelDeclarations, EveryFileOfTheProjectLoads) {
  int files = 0;
  for (const auto& entry : fs::recursive_directory_iterator(fs::path(KT_SOURCE_DIR) / "configs")) {
    const bool is_sweep = entry.path().string().find("/configs/sweeps/") != std::string::npos;
    if (entry.path().extension() != ".yaml" || is_sweep) continue;
    EXPECT_THAT(read_config_file(entry.path(), {}, model_declarations()).faults, IsEmpty())
        << entry.path();
    ++files;
  }
  EXPECT_GE(files, 3);
  const fs::path reference = fs::path(KT_SOURCE_DIR) / "configs" / "ncf_reference.yaml";
  EXPECT_EQ(load_config(reference, {}, model_declarations()).train.global_batch, 32);
}

TEST(ModelDeclarations, TheDefaultFileIsFoundFromAnywhere) {
  const fs::path before = fs::current_path();
  fs::current_path(::testing::TempDir());
  const ConfigReading reading = read_config_file("", {}, model_declarations());
  fs::current_path(before);
  EXPECT_THAT(reading.faults, IsEmpty());
  EXPECT_EQ(reading.config.train.global_batch, 4096);
  EXPECT_EQ(reading.config.run.dir, "runs/ncf");
}

}  // namespace
}  // namespace kt
