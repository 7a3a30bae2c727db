#pragma once

#include <filesystem>

#include "io/synth/synth_model.h"

namespace kt::synth {

/// Writes the five side tables: users, categories, captions, friends, daily features. Returns their bytes.
int64_t write_side_tables(const Model& model, const std::filesystem::path& folder,
                          ThreadPool& pool);

}  // namespace kt::synth
