#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <vector>

// Gives a fuzz target every file of the folders that are its arguments: one exit of them all is the test.

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

int main(int count, char** arguments) {
  namespace fs = std::filesystem;
#ifndef __SANITIZE_ADDRESS__  // which asks for far more than it uses
  const rlimit limit{rlim_t{2} << 30, rlim_t{2} << 30};
  ::setrlimit(RLIMIT_AS, &limit);
#endif
  std::vector<fs::path> files;
  for (int k = 1; k < count; ++k)
    if (fs::is_directory(arguments[k]))
      for (const auto& entry : fs::directory_iterator(arguments[k])) files.push_back(entry.path());
  std::sort(files.begin(), files.end());
  int failed = 0;
  for (const fs::path& file : files) {
    std::ifstream stream(file, std::ios::binary);
    const std::vector<char> input((std::istreambuf_iterator<char>(stream)), {});
    std::fprintf(stderr, "%s\n", file.c_str());  // the last line names an input that never ends
    ::alarm(30);
    try {
      LLVMFuzzerTestOneInput(reinterpret_cast<const uint8_t*>(input.data()), input.size());
    } catch (const std::exception& error) {
      std::fprintf(stderr, "FAILED: %s\n", error.what());
      ++failed;
    }
  }
  std::fprintf(stderr, "%zu inputs, %d failed\n", files.size(), failed);
  return failed == 0 && !files.empty() ? 0 : 1;
}
