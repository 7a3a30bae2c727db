#include "io/run/tensorboard.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>

#include "io/files/files.h"
#include "launch/base/errors.h"

namespace kt {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

/// CRC-32C bit by bit, masked as record framing has it.
uint32_t masked_crc_reference(const std::string& bytes) {
  uint32_t crc = ~0u;
  for (const char byte : bytes) {
    crc ^= static_cast<unsigned char>(byte);
    for (int bit = 0; bit < 8; ++bit) {
      const bool odd = (crc & 1) != 0;
      crc >>= 1;
      if (odd) crc ^= 0x82f63b78u;
    }
  }
  crc = ~crc;
  return ((crc >> 15) | (crc << 17)) + 0xa282ead8u;
}

struct Scalar {
  int64_t step;
  double wall_time;
  std::string tag;
  float value;
  bool operator==(const Scalar&) const = default;
};
void PrintTo(const Scalar& s, std::ostream* out) {
  *out << s.step << " " << s.wall_time << " " << s.tag << " " << s.value;
}

/// A reader of any protocol buffer: every field of a message, in order.
struct Field {
  uint64_t number = 0;
  uint64_t varint = 0;
  std::string bytes;
};
std::vector<Field> fields_of(const std::string& message) {
  std::vector<Field> fields;
  size_t at = 0;
  const auto varint = [&] {
    uint64_t value = 0;
    for (int shift = 0;; shift += 7) {
      const auto byte = static_cast<unsigned char>(message.at(at++));
      value |= static_cast<uint64_t>(byte & 0x7f) << shift;
      if (byte < 0x80) return value;
    }
  };
  while (at < message.size()) {
    const uint64_t tag = varint();
    Field field;
    field.number = tag / 8;
    size_t size = 0;
    switch (tag % 8) {
      case 0:
        field.varint = varint();
        break;
      case 1:
        size = 8;
        break;
      case 2:
        size = varint();
        break;
      case 5:
        size = 4;
        break;
      default:
        throw std::runtime_error("wire type");
    }
    if (at + size > message.size()) throw std::runtime_error("short field");
    field.bytes = message.substr(at, size);
    at += size;
    fields.push_back(field);
  }
  return fields;
}
template <class T>
T as(const std::string& bytes) {
  T value;
  std::memcpy(&value, bytes.data(), sizeof value);
  return value;
}

std::vector<Scalar> read_scalars(const fs::path& file) {
  const std::string text = read_text_file(file);
  std::vector<Scalar> scalars;
  int records = 0;
  for (size_t at = 0; at < text.size(); ++records) {
    const std::string length = text.substr(at, 8);
    const auto size = as<uint64_t>(length);
    EXPECT_EQ(as<uint32_t>(text.substr(at + 8, 4)), masked_crc_reference(length));
    const std::string data = text.substr(at + 12, size);
    EXPECT_EQ(data.size(), size);
    EXPECT_EQ(as<uint32_t>(text.substr(at + 12 + size, 4)), masked_crc_reference(data));
    at += 16 + size;
    Scalar scalar{};
    for (const Field& field : fields_of(data)) {
      if (field.number == 1) scalar.wall_time = as<double>(field.bytes);
      if (field.number == 2) scalar.step = static_cast<int64_t>(field.varint);
      if (field.number == 3) {
        EXPECT_EQ(field.bytes, "brain.Event:2");
        EXPECT_EQ(records, 0);
      }
      if (field.number != 5) continue;
      for (const Field& entry : fields_of(field.bytes))
        for (const Field& part : fields_of(entry.bytes)) {
          if (part.number == 1) scalar.tag = part.bytes;
          if (part.number == 2) {
            scalar.value = as<float>(part.bytes);
            scalars.push_back(scalar);
          }
        }
    }
  }
  EXPECT_GE(records, 1);
  return scalars;
}

class EventFileTest : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::path(::testing::TempDir()) /
              fmt::format("tensorboard_{}_{}", ::getpid(),
                          ::testing::UnitTest::GetInstance()->current_test_info()->name());
    fs::remove_all(folder_);
  }
  void TearDown() override { fs::remove_all(folder_); }
  fs::path folder_;
};

TEST_F(EventFileTest, AnIndependentReaderFindsTheScalars) {
  EventFile file(folder_, -1, 0, {});
  EXPECT_THAT(file.path().filename().string(), HasSubstr("tfevents"));
  file.add(1, 1000.5, {{"train/loss", 0.25}, {"train/lr", 1e-3}});
  file.add(5000000000, 1001, {{"train/loss", -2}});
  EXPECT_THAT(read_scalars(file.path()), ElementsAre(Scalar{1, 1000.5, "train/loss", 0.25f},
                                                     Scalar{1, 1000.5, "train/lr", 1e-3f},
                                                     Scalar{5000000000, 1001, "train/loss", -2}));
}

TEST_F(EventFileTest, AResumedRunGoesOnFromItsStep) {
  fs::path path;
  {
    EventFile file(folder_, -1, 0, {});
    path = file.path();
    for (const int64_t step : {100, 200, 300}) file.add(step, 1, {{"loss", step}});
  }
  std::ofstream(path, std::ios::app) << "torn";
  EventFile file(folder_, 200, 0, {});
  file.add(250, 2, {{"loss", 9}});
  EXPECT_EQ(file.path(), path);
  EXPECT_THAT(read_scalars(path),
              ElementsAre(Scalar{100, 1, "loss", 100}, Scalar{200, 1, "loss", 200},
                          Scalar{250, 2, "loss", 9}));
}

TEST_F(EventFileTest, ANewRunStartsAnew) {
  { EventFile(folder_, -1, 0, {}).add(1, 1, {{"loss", 1}}); }
  EventFile file(folder_, -1, 0, {});
  EXPECT_THAT(read_scalars(file.path()), IsEmpty());
}

TEST_F(EventFileTest, NothingBehindADamagedRecordIsKept) {
  fs::path path;
  {
    EventFile file(folder_, -1, 0, {});
    path = file.path();
    file.add(1, 1, {{"loss", 1}});
    file.add(2, 1, {{"loss", 2}});
  }
  std::string text = read_text_file(path);
  text[text.size() - 5] = static_cast<char>(text[text.size() - 5] ^ 1);
  replace_file(path, text);
  EventFile file(folder_, 10, 0, {});
  EXPECT_THAT(read_scalars(path), ElementsAre(Scalar{1, 1, "loss", 1}));
}

TEST_F(EventFileTest, AFolderThatIsAFileIsRefused) {
  std::ofstream(folder_) << "text";
  try {
    EventFile file(folder_, -1, 0, {});
    FAIL() << "no UserError";
  } catch (const UserError& error) {
    EXPECT_THAT(error.what(), HasSubstr(folder_.string()));
  }
}

}  // namespace
}  // namespace kt
