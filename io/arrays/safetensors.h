#pragma once

#include <nlohmann/json_fwd.hpp>
#include <span>

#include "io/arrays/file_array.h"

namespace kt {

/// Writes arrays to a file descriptor as safetensors: the header's size, the header (of each array type, shape and place;
/// `__metadata__` has the text of `document` as `kuaitrain`), then the data, those of larger elements first.
/// Returns: 0, or what errno said.
/// Source: the format as the repository huggingface/safetensors describes it.
int write_safetensors(int file, std::span<const FileArray> arrays, const nlohmann::json& document);

}  // namespace kt
