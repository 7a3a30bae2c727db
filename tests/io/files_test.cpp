#include "io/files/files.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <fstream>
#include <thread>
#include <vector>

#include "io/dataset/hdf5_file.h"
#include "io/files/checksum.h"
#include "launch/base/errors.h"
#include "launch/process/host.h"

namespace kt {
namespace {

using namespace std::string_literals;

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

class Files : public ::testing::Test {
 protected:
  void SetUp() override {
    root_ =
        fs::path(::testing::TempDir()) /
        (std::string("files-") + ::testing::UnitTest::GetInstance()->current_test_info()->name());
    fs::remove_all(root_);
    fs::create_directories(root_);
  }
  void TearDown() override { fs::remove_all(root_); }
  int64_t entries() const {
    return std::distance(fs::directory_iterator(root_), fs::directory_iterator());
  }
  template <class Work>
  static std::string error_of(Work&& work) {
    try {
      work();
    } catch (const UserError& error) {
      return error.what();
    }
    ADD_FAILURE() << "no UserError";
    return {};
  }
  /// No file may grow beyond `bytes` while `work` runs, as on a full disk.
  template <class Work>
  static std::string error_on_full_disk(rlim_t bytes, Work&& work) {
    std::signal(SIGXFSZ, SIG_IGN);
    rlimit before{};
    getrlimit(RLIMIT_FSIZE, &before);
    const rlimit small{bytes, before.rlim_max};
    setrlimit(RLIMIT_FSIZE, &small);
    const std::string message = error_of(work);
    setrlimit(RLIMIT_FSIZE, &before);
    return message;
  }
  fs::path root_;
};

TEST_F(Files, NewFilesAreWholeOrNotThere) {
  write_new_file(root_ / "a", "text");
  EXPECT_EQ(read_text_file(root_ / "a"), "text");
  EXPECT_THAT(error_of([&] { write_new_file(root_ / "a", "other"); }), HasSubstr("File exists"));
  EXPECT_EQ(read_text_file(root_ / "a"), "text");
  EXPECT_THAT(
      error_on_full_disk(1000, [&] { write_new_file(root_ / "b", std::string(1001, 'x')); }),
      AllOf(HasSubstr("/b: cannot write it"), HasSubstr("free space")));
  EXPECT_EQ(entries(), 1);
}

TEST_F(Files, AReplacedFileIsTheOldOrTheNew) {
  replace_file(root_ / "a", "old");
  replace_file(root_ / "a", "new");
  EXPECT_EQ(read_text_file(root_ / "a"), "new");
  EXPECT_THAT(error_on_full_disk(10, [&] { replace_file(root_ / "a", std::string(100, 'x')); }),
              HasSubstr("free space"));
  EXPECT_EQ(read_text_file(root_ / "a"), "new");
  EXPECT_EQ(entries(), 1);
}

TEST_F(Files, NewFolderAppearsOnCommitOnly) {
  {
    NewFolder folder(root_ / "deep/target/", "do this");
    fs::create_directory(folder.path() / "sub");
    write_new_file(folder.path() / "sub/file", "x", Sync::kOnCommit);
    EXPECT_FALSE(fs::exists(root_ / "deep/target"));
    folder.commit();
  }
  EXPECT_EQ(read_text_file(root_ / "deep/target/sub/file"), "x");
  EXPECT_THAT(error_of([&] { NewFolder again(root_ / "deep/target", "do this"); }),
              AllOf(HasSubstr("exists already"), HasSubstr("do this")));
  {
    NewFolder dropped(root_ / "other", "");
    write_new_file(dropped.path() / "file", "x");
  }
  EXPECT_EQ(entries(), 1);
}

TEST_F(Files, WhatEndedProcessesLeftIsRemoved) {
  const std::string left = "a.tmp-" + host_name() + "-00000000000000aa";
  // Held, as by a process at work; of another host, which may be at work.
  const std::string held = "a.tmp-" + host_name() + "-00000000000000ab";
  const std::string other = "a.tmp-other-host-00000000000000aa";
  // Names that only look alike.
  const std::vector<std::string> alike = {"a.tmp-00000000000000aa", left + "0", left + "x",
                                          "b" + left.substr(1), "a.tmp-notes"};
  for (const std::string& name : {left, held, other}) std::ofstream(root_ / name) << "left";
  for (const std::string& name : alike) std::ofstream(root_ / name) << "kept";
  for (const std::string& name : {left, other})
    fs::create_directories(root_ / ("." + name) / "sub");
  const int file = ::open((root_ / held).c_str(), O_RDONLY);
  ASSERT_EQ(::flock(file, LOCK_EX), 0);

  replace_file(root_ / "a", "text");
  EXPECT_FALSE(fs::exists(root_ / left));
  std::vector<std::string> kept = alike;
  kept.insert(kept.end(), {held, other, "." + left, "." + other});
  for (const std::string& name : kept) EXPECT_TRUE(fs::exists(root_ / name)) << name;
  fs::remove(root_ / "a");
  { NewFolder folder(root_ / "a", ""); }
  EXPECT_FALSE(fs::exists(root_ / ("." + left)));
  EXPECT_TRUE(fs::exists(root_ / ("." + other)));

  for (const std::string& name : kept)
    if (fs::exists(root_ / name))
      fs::last_write_time(root_ / name, fs::file_time_type::clock::now() - std::chrono::hours(25));
  replace_file(root_ / "a", "text");
  EXPECT_FALSE(fs::exists(root_ / other));
  for (const std::string& name : alike) EXPECT_TRUE(fs::exists(root_ / name)) << name;
  EXPECT_TRUE(fs::exists(root_ / held));
  ::close(file);
  fs::remove(root_ / "a");
  { NewFolder folder(root_ / "a", ""); }
  EXPECT_FALSE(fs::exists(root_ / ("." + other)));
}

TEST_F(Files, SeveralWriteTheSameAtOnce) {
  std::vector<std::thread> writers;
  for (const char digit : {'1', '2', '3', '4'})
    writers.emplace_back([this, digit] {
      for (int k = 0; k < 200; ++k)
        EXPECT_NO_THROW(replace_file(root_ / "a", std::string(1000, digit)));
    });
  for (std::thread& writer : writers) writer.join();
  const std::string text = read_text_file(root_ / "a");
  EXPECT_EQ(text, std::string(1000, text.front()));
  EXPECT_EQ(entries(), 1);

  NewFolder first(root_ / "folder", ""), second(root_ / "folder", "");
  for (const NewFolder* folder : {&first, &second}) write_new_file(folder->path() / "file", "x");
  second.commit();
  EXPECT_THAT(error_of([&] { first.commit(); }), HasSubstr("/folder: cannot write it"));
  EXPECT_EQ(read_text_file(root_ / "folder/file"), "x");
}

TEST_F(Files, ResultsGoThroughLinks) {
  fs::create_directories(root_ / "far");
  fs::create_symlink("far/a", root_ / "link");
  for (const char* text : {"new", "newer"}) {
    ResultFile(root_ / "link").write(text);
    EXPECT_EQ(read_text_file(root_ / "far/a"), text);
  }
  EXPECT_TRUE(fs::is_symlink(root_ / "link"));
  fs::create_symlink("turn", root_ / "about");
  fs::create_symlink("about", root_ / "turn");
  for (const char* name : {"about", "none/a", "far", "far/", "far/a/b", ""})
    EXPECT_THAT(error_of([&] { ResultFile{root_ / name}; }), HasSubstr(name));
  ResultFile("/dev/null").write("text");
  EXPECT_TRUE(fs::is_character_file("/dev/null"));
  EXPECT_THAT(error_of([&] { ResultFile("/dev/full").write("text"); }),
              HasSubstr("/dev/full: cannot write it: No space left"));
}

TEST_F(Files, UnreadableOnesAreNamed) {
  EXPECT_THAT(error_of([&] { read_text_file(root_ / "none"); }),
              AllOf(HasSubstr("/none: cannot read it"), HasSubstr("No such file")));
  EXPECT_THAT(error_of([&] { checksum_of_file(root_ / "none"); }),
              HasSubstr("/none: cannot read it"));
}

TEST_F(Files, Checksums) {
  write_new_file(root_ / "empty", "");
  // The published value of XXH3-128 for no input.
  EXPECT_EQ(checksum_of_file(root_ / "empty"), (FileSum{0, "99aa06d3014798d86001c324468d497f"}));
  const std::string large(3 << 20, 'x');
  write_new_file(root_ / "large", large);
  const FileSum sum = checksum_of_file(root_ / "large");
  EXPECT_EQ(sum, (FileSum{3 << 20, checksum(std::as_bytes(std::span(large)))}));
  verify_file(root_ / "large", sum, "");
  EXPECT_THAT(error_of([&] {
                verify_file(root_ / "large", {3 << 20, "00"}, "mend it");
              }),
              AllOf(HasSubstr("is damaged"), HasSubstr(sum.xxh128), HasSubstr("expected 00"),
                    HasSubstr("mend it")));
}

TEST_F(Files, ChecksumsKeepFieldsApart) {
  Checksum a, b;
  a.text("ab");
  a.text("c");
  b.text("a");
  b.text("bc");
  EXPECT_NE(a.hex(), b.hex());
}

TEST_F(Files, Hdf5ReadsWhatItWrote) {
  Hdf5File file = Hdf5File::create(root_ / "a.h5");
  const std::vector<int32_t> numbers = {1, 2, 3, 4, 5, 6};
  file.write("numbers", numbers);
  file.write<int32_t>("table", numbers, 3, 2);
  file.write("none", std::vector<double>{});
  file.write("bytes", std::vector<uint8_t>{255});
  file.write("wide", std::vector<int64_t>{INT64_MIN});
  file.write("row", std::vector<uint32_t>{UINT32_MAX});
  file.write("single", std::vector<float>{.1f});
  const std::vector<std::string> strings = {"a", "", "x\0y"s};
  file.write_strings("strings", strings);
  file.write_attribute("step", int64_t{7});
  file.write_attribute("rate", .5);
  file.write_attribute("name", "ncf");
  const FileSum sum = file.close();
  EXPECT_EQ(sum, checksum_of_file(root_ / "a.h5"));

  const Hdf5File in = Hdf5File::open(root_ / "a.h5");
  EXPECT_EQ(in.read<int32_t>("numbers"), numbers);
  EXPECT_EQ(in.read<int32_t>("table"), numbers);
  EXPECT_THAT(in.shape("table"), ElementsAre(3, 2));
  std::vector<int32_t> part(4);
  in.read_rows<int32_t>("table", 1, 3, part);
  EXPECT_THAT(part, ElementsAre(3, 4, 5, 6));
  in.read_rows<int32_t>("table", 1, 1, {});
  EXPECT_TRUE(in.read<double>("none").empty());
  EXPECT_THAT(in.read<uint8_t>("bytes"), ElementsAre(255));
  EXPECT_THAT(in.read<int64_t>("wide"), ElementsAre(INT64_MIN));
  EXPECT_THAT(in.read<uint32_t>("row"), ElementsAre(UINT32_MAX));
  EXPECT_THAT(in.read<float>("single"), ElementsAre(.1f));
  EXPECT_EQ(in.read_strings("strings"), strings);
  EXPECT_EQ(in.read_int_attribute("step"), 7);
  EXPECT_EQ(in.read_double_attribute("rate"), .5);
  EXPECT_EQ(in.read_string_attribute("name"), "ncf");
  EXPECT_FALSE(in.has_attribute("other"));
  EXPECT_TRUE(in.has("row"));
  EXPECT_FALSE(in.has("rows"));
  EXPECT_EQ(in.type_name("row"), "uint32");
}

TEST_F(Files, Hdf5FaultsNameTheFile) {
  {
    Hdf5File file = Hdf5File::create(root_ / "a.h5");
    file.write("x", std::vector<int32_t>{1, 2});
    file.close();
  }
  const Hdf5File in = Hdf5File::open(root_ / "a.h5");
  EXPECT_THAT(error_of([&] { in.read<float>("x"); }),
              AllOf(HasSubstr("a.h5: x holds int32, expected float32")));
  EXPECT_THAT(error_of([&] { in.read<float>("y"); }), AllOf(HasSubstr("a.h5: cannot read y")));
  std::vector<int32_t> out(2);
  EXPECT_THAT(error_of([&] { in.read_rows<int32_t>("x", 1, 3, out); }),
              HasSubstr("the file has 2"));
  EXPECT_THAT(error_of([&] { Hdf5File::open(root_ / "b.h5"); }), HasSubstr("b.h5: no such file"));
  std::ofstream(root_ / "c.h5") << "no HDF5";
  EXPECT_THAT(error_of([&] { Hdf5File::open(root_ / "c.h5"); }),
              HasSubstr("c.h5: cannot read it as HDF5"));
}

TEST_F(Files, Hdf5OnAFullDiskLeavesNothing) {
  const auto write = [&] {
    Hdf5File file = Hdf5File::create(root_ / "a.h5");
    file.write("x", std::vector<int32_t>(10'000, 1));
    file.close();
  };
  for (const rlim_t bytes : {0, 1000, 39'000})
    EXPECT_THAT(error_on_full_disk(bytes, write),
                AllOf(HasSubstr("a.h5"), HasSubstr("free space")));
  EXPECT_EQ(entries(), 0);
  write();  // and the library still works
  EXPECT_EQ(Hdf5File::open(root_ / "a.h5").read<int32_t>("x").size(), 10'000u);
}

TEST_F(Files, AnHdf5FileThatIsNotClosedIsDropped) {
  { Hdf5File::create(root_ / "a.h5").write("x", std::vector<int32_t>{1}); }
  EXPECT_EQ(entries(), 0);
}

}  // namespace
}  // namespace kt
