#pragma once

/// Marks what the CPU and a device's kernels compute with alike: one text, and so the same bits.
#ifdef __CUDACC__
#define KT_HOST_DEVICE __host__ __device__
#else
#define KT_HOST_DEVICE
#endif
