// Preloaded into a rank: a disk that takes its time. KT_SLOW_RANK has it (by OMPI_COMM_WORLD_RANK; unset: all);
// fsync takes KT_SLOW_FSYNC_MS and a read of a file below KT_SLOW_PATH takes KT_SLOW_READ_MS, the first KT_SLOW_TIMES
// times.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static atomic_long times;

static void take(const char* variable) {
  const char* milliseconds = getenv(variable);
  const char *slow = getenv("KT_SLOW_RANK"), *rank = getenv("OMPI_COMM_WORLD_RANK");
  if (!milliseconds || (slow && rank && strcmp(slow, rank) != 0)) return;
  const char* most = getenv("KT_SLOW_TIMES");
  if (most && atomic_fetch_add(&times, 1) >= atol(most)) return;
  const long all = atol(milliseconds);
  struct timespec left = {all / 1000, all % 1000 * 1000000};
  nanosleep(&left, NULL);
}

static int is_slow(int file) {
  const char* folder = getenv("KT_SLOW_PATH");
  char link[64], path[4096];
  snprintf(link, sizeof link, "/proc/self/fd/%d", file);
  const ssize_t size = readlink(link, path, sizeof path - 1);
  if (!folder || size < 0) return 0;
  path[size] = '\0';
  return strncmp(path, folder, strlen(folder)) == 0;
}

// With the names that programs built for large files call, which are the same on 64-bit machines.
ssize_t pread64(int, void*, size_t, off_t) __attribute__((alias("pread")));

int fsync(int file) {
  int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, "fsync");
  take("KT_SLOW_FSYNC_MS");
  return real(file);
}

ssize_t read(int file, void* buffer, size_t size) {
  ssize_t (*real)(int, void*, size_t) = (ssize_t(*)(int, void*, size_t))dlsym(RTLD_NEXT, "read");
  if (is_slow(file)) take("KT_SLOW_READ_MS");
  return real(file, buffer, size);
}

ssize_t pread(int file, void* buffer, size_t size, off_t at) {
  ssize_t (*real)(int, void*, size_t, off_t) =
      (ssize_t(*)(int, void*, size_t, off_t))dlsym(RTLD_NEXT, "pread");
  if (is_slow(file)) take("KT_SLOW_READ_MS");
  return real(file, buffer, size, at);
}
