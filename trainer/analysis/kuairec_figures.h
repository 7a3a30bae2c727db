#pragma once

#include <nlohmann/json_fwd.hpp>

#include "io/dataset/dataset.h"

namespace kt {

/// For a synthetic replica: [{what, kuairec, here}], figures of KuaiRec 2.0 that do not depend on scale beside those of
/// `numbers` (trainer/analysis/analysis.h). For other data: {absent}, since nothing there is to be compared with KuaiRec.
nlohmann::json beside_kuairec(const Dataset& dataset, const nlohmann::json& numbers);

}  // namespace kt
