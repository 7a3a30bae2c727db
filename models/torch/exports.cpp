// What libkuaitrain_torch.so is asked for.
#include "kuaitrain_commit.h"
#include "models/torch/torch_library.h"

extern "C" {
extern const kt::TorchLibrary kuaitrain_torch;
const kt::TorchLibrary kuaitrain_torch = {
    .commit = KT_COMMIT,
    .make_torch_engine = kt::make_torch_engine,
#ifdef KT_GPU
    .make_torch_device_engine = kt::make_torch_device_engine,
#else
    .make_torch_device_engine = nullptr,
#endif
    .invert_positive_definite = kt::invert_positive_definite,
    .top_eigenvectors = kt::top_eigenvectors,
};
}
