#pragma once

#include <algorithm>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "launch/collectives/communicator.h"
#include "tests/support/mpi_test.h"

namespace kt {

/// A communicator under test, and the memory it works on.
class Subject {
 public:
  virtual ~Subject() = default;
  virtual Communicator& comm() = 0;
  virtual int64_t sequence() const = 0;
  /// What the collectives are given.
  virtual Stream stream() const { return {}; }
  virtual void* allocate(size_t bytes) = 0;
  virtual void free(void* memory) = 0;
  /// In order with the collectives on `stream()`, and done when they return.
  virtual void write(void* to, const void* from, size_t bytes) = 0;
  virtual void read(void* to, const void* from, size_t bytes) = 0;
  virtual void finish() {}
};

struct SubjectKind {
  std::string name;
  std::function<std::unique_ptr<Subject>()> make;
};
inline std::string name_of(const ::testing::TestParamInfo<SubjectKind>& info) {
  return info.param.name;
}

/// The cases every communicator passes (communicator_cases.cpp), instantiated by the test of each form.
class CommunicatorTest : public MpiTest, public ::testing::WithParamInterface<SubjectKind> {
 protected:
  CommunicatorTest() : subject(GetParam().make()) {}
  void TearDown() override {
    subject->finish();
    MpiTest::TearDown();
  }
  std::unique_ptr<Subject> subject;
};

/// An array in the memory of a subject.
template <class T>
class Buffer {
 public:
  Buffer(Subject& subject, const std::vector<T>& values)
      : subject_(subject),
        size_(values.size()),
        data_(subject.allocate(std::max<size_t>(size_, 1) * sizeof(T))) {
    subject_.write(data_, values.data(), size_ * sizeof(T));
  }
  ~Buffer() { subject_.free(data_); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;

  T* data() const { return static_cast<T*>(data_); }
  std::vector<T> values() const {
    std::vector<T> values(size_);
    subject_.read(values.data(), data_, size_ * sizeof(T));
    return values;
  }

 private:
  Subject& subject_;
  size_t size_;
  void* data_;
};

/// Differs from rank to rank and from zero.
template <class T>
std::vector<T> values_of(int rank, int64_t count) {
  std::vector<T> v(static_cast<size_t>(count));
  for (int64_t i = 0; i < count; ++i) {
    v[static_cast<size_t>(i)] = static_cast<T>((rank + 1) * 10 + i % 7 + 1);
  }
  return v;
}

template <class Call>
std::string bug_of(Call&& call) {
  try {
    call();
  } catch (const std::exception& error) {
    return error.what();
  }
  return "no error";
}

}  // namespace kt
