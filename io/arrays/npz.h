#pragma once

#include <nlohmann/json_fwd.hpp>
#include <span>

#include "io/arrays/file_array.h"

namespace kt {

/// Writes arrays to a file descriptor as numpy's npz: a zip of NAME.npy, not compressed, and `document` as metadata.json.
/// The file is one that can go back to what was written: no pipe.
/// Returns: 0, or what errno said.
/// Source: numpy's description of its format (numpy.lib.format).
int write_npz(int file, std::span<const FileArray> arrays, const nlohmann::json& document);

}  // namespace kt
