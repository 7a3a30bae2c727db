#include "io/arrays/safetensors.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "io/files/files.h"
#include "io/files/json_text.h"

namespace kt {
namespace {

const char* name_of(ElementType type) {
  switch (type) {
    case ElementType::kFloat32:
      return "F32";
    case ElementType::kInt64:
      return "I64";
    case ElementType::kInt32:
      return "I32";
    case ElementType::kUint8:
      return "U8";
  }
  return "";
}

}  // namespace

int write_safetensors(int file, std::span<const FileArray> arrays, const nlohmann::json& document) {
  std::vector<FileArray> ordered(arrays.begin(), arrays.end());  // so that each is aligned
  std::ranges::stable_sort(ordered, std::ranges::greater(),
                           [](const FileArray& array) { return bytes_of(array.type); });
  nlohmann::json header{{"__metadata__", {{"kuaitrain", to_text(document)}}}};
  size_t begin = 0;
  for (const FileArray& array : ordered) {
    const size_t end = begin + array.data.size();
    header[array.name] = {
        {"dtype", name_of(array.type)}, {"shape", array.shape}, {"data_offsets", {begin, end}}};
    begin = end;
  }
  std::string text = to_text(header);
  text.resize((text.size() + 7) / 8 * 8, ' ');
  const uint64_t size = text.size();
  int error = write_all(file, std::as_bytes(std::span(&size, 1)));
  if (error == 0) error = write_all(file, std::as_bytes(std::span(text)));
  for (size_t k = 0; error == 0 && k < ordered.size(); ++k)
    error = write_all(file, ordered[k].data);
  return error;
}

}  // namespace kt
