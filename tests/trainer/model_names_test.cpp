#include <gtest/gtest.h>

#include "io/config/config.h"
#include "models/systems/registry.h"

namespace kt {
namespace {

// The two folders do not know one another, so their lists could part.
TEST(ModelNames, TheConfigurationAcceptsThoseOfTheRegistry) {
  std::string all;
  for (const SystemEntry& entry : systems()) {
    const std::string name = entry.name;
    EXPECT_TRUE(read_config("", "toy.yaml", {"model.name=" + name}).faults.empty()) << name;
    all += (all.empty() ? "" : " or ") + name;
  }
  const ConfigReading unknown = read_config("", "toy.yaml", {"model.name=unheard-of"});
  ASSERT_EQ(unknown.faults.size(), 1u);
  EXPECT_TRUE(unknown.faults[0].ends_with("expected " + all)) << unknown.faults[0];
}

}  // namespace
}  // namespace kt
