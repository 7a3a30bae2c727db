#include <nlohmann/json.hpp>

#include "io/config/identity.h"
#include "io/config/reader.h"
#include "io/config/writers.h"
#include "tests/fuzz/target.h"
#include "tests/support/declared_models.h"

namespace kt {
namespace {

/// Parts: the YAML, then overrides.
void run(const std::vector<std::string>& parts) {
  std::vector<std::string> overrides;
  for (size_t k = 1; k < parts.size(); ++k)
    if (!parts[k].empty()) overrides.push_back(parts[k]);
  const ConfigReading reading = read_config(parts[0], "run.yaml", overrides, declared_models());
  for (const std::string& fault : reading.faults) fuzz::check_message(fault);
  if (!reading.faults.empty()) return;
  // A run stores its configuration and is continued with what is read back.
  const std::string text = to_yaml(reading.config);
  const ConfigReading again = read_config(text, "run.yaml", {}, declared_models());
  KT_CHECK(again.faults.empty(), "{}\n{}", again.faults.front(), text);
  KT_CHECK(to_json(again.config) == to_json(reading.config), "{}", text);
  KT_CHECK(identity_differences(identity(reading.config, "hash"), identity(again.config, "hash"),
                                again.config)
               .empty());
}

}  // namespace
}  // namespace kt

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  kt::run(kt::fuzz::parts(data, size, 4));
  return 0;
}
