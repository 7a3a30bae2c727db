#include "trainer/sweeps/space.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "io/files/checksum.h"
#include "launch/base/errors.h"
#include "launch/base/math.h"
#include "launch/base/random.h"

namespace kt {
namespace {

/// Whether a parameter exists beside the values of those above it.
bool exists(const Parameter& parameter, std::span<const Parameter> parameters,
            const ParameterValues& values) {
  if (parameter.when.empty()) return true;
  const auto other = std::ranges::find(parameters, parameter.when, &Parameter::key);
  const std::optional<std::string>& value = values[other - parameters.begin()];
  return value && std::ranges::find(parameter.when_values, *value) != parameter.when_values.end();
}

double uniform_of(const Parameter& parameter, int64_t seed, int64_t trial) {
  Checksum sum;
  sum.text(parameter.key);
  const uint64_t key = std::stoull(sum.hex().substr(0, 16), nullptr, 16);
  return to_uniform(
      random_bits(static_cast<uint64_t>(seed), Purpose::kSweep, static_cast<uint64_t>(trial), key));
}

std::string number_at(const Parameter& parameter, double share) {
  const bool log = parameter.kind == Parameter::Kind::kLogUniform;
  // A whole number has an interval of one around it.
  const double low = parameter.low - (parameter.whole ? .5 : 0);
  const double high = parameter.high + (parameter.whole ? .5 : 0);
  const double drawn = log ? low * math::pow(high / low, share) : low + share * (high - low);
  const double rounded =
      parameter.whole ? std::round(drawn) : std::stod(fmt::format("{:.4g}", drawn));
  return fmt::format("{}", std::clamp(rounded, parameter.low, parameter.high));
}

}  // namespace

std::vector<ParameterValues> grid_of(std::span<const Parameter> parameters, int64_t most) {
  std::vector<ParameterValues> grid = {{}};
  for (const Parameter& parameter : parameters) {
    KT_CHECK(parameter.kind == Parameter::Kind::kChoice, "{}", parameter.key);
    std::vector<ParameterValues> longer;
    for (const ParameterValues& values : grid) {
      const bool here = exists(parameter, parameters, values);
      for (size_t k = 0; k < (here ? parameter.values.size() : 1); ++k) {
        if (std::ssize(longer) == most) break;
        longer.push_back(values);
        longer.back().push_back(here ? std::optional(parameter.values[k]) : std::nullopt);
      }
    }
    grid = std::move(longer);
  }
  return grid;
}

ParameterValues draw_values(std::span<const Parameter> parameters, int64_t seed, int64_t trial) {
  ParameterValues values;
  for (const Parameter& parameter : parameters) {
    if (!exists(parameter, parameters, values)) {
      values.emplace_back();
      continue;
    }
    const double share = uniform_of(parameter, seed, trial);
    const auto choices = static_cast<double>(parameter.values.size());
    values.emplace_back(parameter.kind == Parameter::Kind::kChoice
                            ? parameter.values[static_cast<size_t>(share * choices)]
                            : number_at(parameter, share));
  }
  return values;
}

}  // namespace kt
