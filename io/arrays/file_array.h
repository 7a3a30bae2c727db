#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace kt {

enum class ElementType { kFloat32, kInt64, kInt32, kUint8 };
int64_t bytes_of(ElementType type);

/// An array as files for other programs have it (io/arrays/safetensors.h, io/arrays/npz.h).
struct FileArray {
  std::string name;
  ElementType type = ElementType::kFloat32;
  std::vector<int64_t> shape;
  std::span<const std::byte> data;  ///< row-major, little-endian: [product of the shape] elements
};

/// Borrows the data.
FileArray file_array(std::string name, std::vector<int64_t> shape, std::span<const float> data);
FileArray file_array(std::string name, std::vector<int64_t> shape, std::span<const int64_t> data);
FileArray file_array(std::string name, std::vector<int64_t> shape, std::span<const int32_t> data);
FileArray file_array(std::string name, std::vector<int64_t> shape, std::span<const uint8_t> data);

}  // namespace kt
