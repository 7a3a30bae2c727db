#include "io/arrays/file_array.h"

#include <functional>
#include <numeric>
#include <utility>

#include "launch/base/errors.h"

namespace kt {
namespace {

template <class T>
FileArray make(std::string name, ElementType type, std::vector<int64_t> shape,
               std::span<const T> data) {
  const int64_t size = std::accumulate(shape.begin(), shape.end(), int64_t{1}, std::multiplies<>());
  KT_CHECK(size == std::ssize(data), "{}: {} elements, a shape of {}", name, data.size(), size);
  return {std::move(name), type, std::move(shape), std::as_bytes(data)};
}

}  // namespace

int64_t bytes_of(ElementType type) {
  return type == ElementType::kInt64 ? 8 : type == ElementType::kUint8 ? 1 : 4;
}

FileArray file_array(std::string name, std::vector<int64_t> shape, std::span<const float> data) {
  return make(std::move(name), ElementType::kFloat32, std::move(shape), data);
}
FileArray file_array(std::string name, std::vector<int64_t> shape, std::span<const int64_t> data) {
  return make(std::move(name), ElementType::kInt64, std::move(shape), data);
}
FileArray file_array(std::string name, std::vector<int64_t> shape, std::span<const int32_t> data) {
  return make(std::move(name), ElementType::kInt32, std::move(shape), data);
}
FileArray file_array(std::string name, std::vector<int64_t> shape, std::span<const uint8_t> data) {
  return make(std::move(name), ElementType::kUint8, std::move(shape), data);
}

}  // namespace kt
