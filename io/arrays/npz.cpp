#include "io/arrays/npz.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <minizip/zip.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <string_view>

#include "io/files/json_text.h"
#include "launch/process/watchdog.h"

namespace kt {
namespace {

constexpr size_t kPiece = size_t{1} << 20;

const char* name_of(ElementType type) {
  switch (type) {
    case ElementType::kFloat32:
      return "<f4";
    case ElementType::kInt64:
      return "<i8";
    case ElementType::kInt32:
      return "<i4";
    case ElementType::kUint8:
      return "|u1";
  }
  return "";
}

/// Version 1.0: its size is a multiple of 64.
std::string npy_header(const FileArray& array) {
  std::string text = fmt::format("{{'descr': '{}', 'fortran_order': False, 'shape': ({},), }}",
                                 name_of(array.type), fmt::join(array.shape, ", "));
  constexpr size_t kBefore = 10;
  text.resize((kBefore + text.size() + 1 + 63) / 64 * 64 - kBefore - 1, ' ');
  text += '\n';
  std::string header("\x93NUMPY\x01\x00", 8);
  header += static_cast<char>(text.size() & 0xff);
  header += static_cast<char>(text.size() >> 8);
  return header + text;
}

/// A zip in a file that stays open. Members after a failure are not written.
class Zip {
 public:
  explicit Zip(int file) {
    zlib_filefunc64_def functions;
    fill_fopen64_filefunc(&functions);
    functions.zopen64_file = [](void*, const void* name, int) -> void* {
      return ::fdopen(::dup(*static_cast<const int*>(name)), "wb");
    };
    zip_ = zipOpen2_64(&file, APPEND_STATUS_CREATE, nullptr, &functions);
    if (zip_ == nullptr) error_ = reason();
  }

  void begin(const std::string& name) {
    constexpr int kStored = 0, kMayBeLarge = 1;
    const zip_fileinfo no_date{};
    check(error_ != 0 ? ZIP_OK
                      : zipOpenNewFileInZip64(zip_, name.c_str(), &no_date, nullptr, 0, nullptr, 0,
                                              nullptr, kStored, 0, kMayBeLarge));
  }
  void write(std::string_view text) { write(std::as_bytes(std::span(text))); }
  void write(std::span<const std::byte> bytes) {
    while (error_ == 0 && !bytes.empty()) {
      const auto piece = bytes.first(std::min(bytes.size(), kPiece));
      check(zipWriteInFileInZip(zip_, piece.data(), static_cast<unsigned>(piece.size())));
      heartbeat();
      bytes = bytes.subspan(piece.size());
    }
  }
  void end() {
    if (error_ == 0) check(zipCloseFileInZip(zip_));
  }
  /// Returns: 0, or what errno said.
  int close() {
    const int status = zip_ == nullptr ? ZIP_OK : zipClose(zip_, nullptr);
    if (error_ == 0) check(status);
    return error_;
  }

 private:
  static int reason() { return errno != 0 ? errno : EIO; }
  void check(int status) {
    if (status != ZIP_OK) error_ = reason();
  }

  zipFile zip_ = nullptr;
  int error_ = 0;
};

}  // namespace

int write_npz(int file, std::span<const FileArray> arrays, const nlohmann::json& document) {
  errno = 0;
  Zip zip(file);
  for (const FileArray& array : arrays) {
    zip.begin(array.name + ".npy");
    zip.write(npy_header(array));
    zip.write(array.data);
    zip.end();
  }
  zip.begin("metadata.json");
  zip.write(to_text(document));
  zip.end();
  return zip.close();
}

}  // namespace kt
