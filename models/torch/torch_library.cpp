#include "models/torch/torch_library.h"

#include <dlfcn.h>

#include <filesystem>
#include <string_view>

#include "kuaitrain_commit.h"
#include "launch/base/errors.h"
#include "launch/process/watchdog.h"

namespace kt {
namespace {

const TorchLibrary& load() {
  const std::filesystem::path name = "libkuaitrain_torch.so";
  const DiskWait wait("loading", name);
  void* handle = dlopen(name.c_str(), RTLD_NOW);
  if (!handle)
    user_error(
        "{}; this run computes through libtorch: expected libkuaitrain_torch.so beside the "
        "program, and libtorch where it was when it was built or in LD_LIBRARY_PATH",
        dlerror());
  const auto* library = static_cast<const TorchLibrary*>(dlsym(handle, "kuaitrain_torch"));
  if (!library || std::string_view(library->commit) != KT_COMMIT)
    user_error(
        "libkuaitrain_torch.so: got that of {}, expected that of commit {}, as the program is: "
        "keep the two of one build together",
        library ? std::string("commit ") + library->commit : "another build", KT_COMMIT);
  return *library;
}

}  // namespace

const TorchLibrary& torch_library() {
  static const TorchLibrary& library = load();
  return library;
}

}  // namespace kt
