#pragma once

#include <fcntl.h>
#include <fmt/core.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "launch/base/errors.h"

/// What fuzz targets share. A target is one file with `LLVMFuzzerTestOneInput`: libFuzzer calls it in the preset
/// `fuzz`, replay.cpp in the others. A reader may succeed, or refuse by UserError; all else is a finding.
namespace kt::fuzz {

/// The folder of this process, removed at its end.
inline const std::filesystem::path& folder() {
  struct Folder {
    Folder() {
      std::string name = std::filesystem::temp_directory_path() / "kuaitrain-fuzz-XXXXXX";
      if (::mkdtemp(name.data()) == nullptr) std::abort();
      path = name;
    }
    ~Folder() { std::filesystem::remove_all(path); }
    std::filesystem::path path;
  };
  static const Folder folder;
  return folder.path;
}

inline std::filesystem::path write(const std::string& name, std::string_view text) {
  const std::filesystem::path path = folder() / name;
  const int file = ::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  if (file < 0 || ::write(file, text.data(), text.size()) != static_cast<ssize_t>(text.size()))
    std::abort();
  ::close(file);
  return path;
}

/// The first `count` parts of an input, cut at the bytes 0x1e (record separator); absent ones are empty.
inline std::vector<std::string> parts(const uint8_t* data, size_t size, size_t count) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  std::vector<std::string> parts(count);
  size_t begin = 0;
  for (size_t k = 0; k < count && begin <= size; ++k) {
    const size_t end = k + 1 < count ? std::min(text.find('\x1e', begin), size) : size;
    parts[k] = text.substr(begin, end - begin);
    begin = end + 1;
  }
  return parts;
}

/// A message of a refusal, which the log makes printable, is one.
inline void check_message(const std::string& message) {
  KT_CHECK(!message.empty() && message.size() < 100'000, "a message of {} bytes", message.size());
}

/// Whether the work was done; false when it was refused.
template <class Work>
bool accepted(Work&& work) {
  try {
    work();
    return true;
  } catch (const UserError& error) {
    check_message(error.what());
    return false;
  }
}

}  // namespace kt::fuzz
