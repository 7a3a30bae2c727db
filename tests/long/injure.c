// Preloaded into a rank (LD_PRELOAD) by tests/long/run: counts the operations that change files under one folder,
// and does harm before one of them. Calls of the C library alone are seen, which HDF5's, spdlog's and libstdc++'s are.
//
// KT_INJURE_UNDER=DIR       the folder, as an absolute path without links
// KT_INJURE_TRACE=FILE      a line for each operation, "RANK NUMBER KIND PATH", and "RANK main NANOSECONDS" (monotonic)
// KT_INJURE=ACTION:KIND:N   before the N-th operation of that kind (any, write, fsync, rename, mkdir, unlink, symlink,
//                           open, truncate):
//     kill, stop            this process
//     errno=E[+]            the operation fails with E and does nothing; +: all that follow as well
//     sleep=MS              the operation is late
//     clock=S               from now on the clock of the day is S seconds ahead, the monotonic one untouched
// KT_INJURE_RANK=R          in the rank R of mpirun alone
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum Kind { kAny, kWrite, kFsync, kRename, kMkdir, kUnlink, kSymlink, kOpen, kTruncate, kKinds };
static const char* const kKindNames[kKinds] = {"any",    "write",   "fsync", "rename",  "mkdir",
                                               "unlink", "symlink", "open",  "truncate"};
enum Action { kNone, kKill, kStop, kErrno, kSleep, kClock };

static char under[PATH_MAX];
static int rank = 0;
static int trace = -1;
static enum Action action = kNone;
static long amount = 0;
static int for_good = 0;
static enum Kind of = kAny;
static long at = 0;
static atomic_long counts[kKinds];
static atomic_long ahead_s;

#define REAL(name)               \
  static __typeof__(&name) real; \
  if (!real) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

static void tell(const char* text, size_t size) {
  if (trace >= 0 && syscall(SYS_write, trace, text, size) < 0) _exit(99);
}

static void refuse(const char* what) {
  dprintf(STDERR_FILENO, "injure: %s\n", what);
  _exit(99);
}

static void read_action(char* text) {
  char* kind = strchr(text, ':');
  char* number = kind ? strchr(kind + 1, ':') : NULL;
  if (!number) refuse("KT_INJURE is no ACTION:KIND:N");
  *kind++ = *number++ = 0;
  at = atol(number);
  while (of < kKinds && strcmp(kKindNames[of], kind) != 0) ++of;
  if (of == kKinds) refuse("KT_INJURE: unknown kind");
  char* equals = strchr(text, '=');
  if (equals) {
    amount = atol(equals + 1);
    for_good = text[strlen(text) - 1] == '+';
    *equals = 0;
  }
  if (strcmp(text, "kill") == 0) action = kKill;
  if (strcmp(text, "stop") == 0) action = kStop;
  if (strcmp(text, "errno") == 0) action = kErrno;
  if (strcmp(text, "sleep") == 0) action = kSleep;
  if (strcmp(text, "clock") == 0) action = kClock;
  if (action == kNone) refuse("KT_INJURE: unknown action");
}

__attribute__((constructor)) static void prepare(void) {
  const char* text = getenv("OMPI_COMM_WORLD_RANK");
  if (text) rank = atoi(text);
  text = getenv("KT_INJURE_UNDER");
  if (!text) return;
  snprintf(under, sizeof under, "%s", text);
  text = getenv("KT_INJURE_TRACE");
  if (text)
    trace =
        (int)syscall(SYS_openat, AT_FDCWD, text, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
  text = getenv("KT_INJURE_RANK");
  if (text && atoi(text) != rank) return;
  text = getenv("KT_INJURE");
  if (!text) return;
  char copy[128];
  snprintf(copy, sizeof copy, "%s", text);
  read_action(copy);
}

static int is_under(const char* path) {
  const size_t size = strlen(under);
  return size > 0 && strncmp(path, under, size) == 0 && (path[size] == '/' || path[size] == 0);
}

static void path_of(int file, char* out) {
  char link[64];
  snprintf(link, sizeof link, "/proc/self/fd/%d", file);
  const ssize_t size = readlink(link, out, PATH_MAX - 1);
  out[size < 0 ? 0 : size] = 0;
}

static void path_at(int folder, const char* path, char* out) {
  out[0] = 0;
  if (path[0] != '/') {
    if (folder == AT_FDCWD) {
      if (!getcwd(out, PATH_MAX)) out[0] = 0;
    } else {
      path_of(folder, out);
    }
    strncat(out, "/", PATH_MAX - strlen(out) - 1);
  }
  strncat(out, path, PATH_MAX - strlen(out) - 1);
}

// 0, or the errno with which the operation is to fail.
static int injure(enum Kind kind, const char* path) {
  if (!is_under(path)) return 0;
  const long n = atomic_fetch_add(&counts[kind], 1) + 1;
  const long any = atomic_fetch_add(&counts[kAny], 1) + 1;
  char line[PATH_MAX + 64];
  const int size = snprintf(line, sizeof line, "%d %ld %s %s\n", rank, any, kKindNames[kind], path);
  tell(line, (size_t)size);
  if (action == kNone || (of != kAny && of != kind)) return 0;
  const long now = of == kAny ? any : n;
  if (now != at && !(action == kErrno && for_good && now > at)) return 0;
  switch (action) {
    case kKill:
      kill(getpid(), SIGKILL);
      for (;;) pause();
    case kStop:
      kill(getpid(), SIGSTOP);
      return 0;
    case kErrno:
      return (int)amount;
    case kSleep: {
      const struct timespec late = {amount / 1000, amount % 1000 * 1000000};
      nanosleep(&late, NULL);
      return 0;
    }
    case kClock:
      atomic_store(&ahead_s, amount);
      return 0;
    case kNone:
      break;
  }
  return 0;
}

static int injure_file(enum Kind kind, int file) {
  char path[PATH_MAX];
  path_of(file, path);
  return injure(kind, path);
}

static int injure_at(enum Kind kind, int folder, const char* name) {
  char path[PATH_MAX];
  path_at(folder, name, path);
  return injure(kind, path);
}

#define HARM(call, failed)  \
  do {                      \
    const int error = call; \
    if (error) {            \
      errno = error;        \
      return failed;        \
    }                       \
  } while (0)

// --- Writes ---------------------------------------------------------------------------------------------------------

ssize_t write(int file, const void* bytes, size_t size) {
  REAL(write);
  HARM(injure_file(kWrite, file), -1);
  return real(file, bytes, size);
}
ssize_t pwrite(int file, const void* bytes, size_t size, off_t offset) {
  REAL(pwrite);
  HARM(injure_file(kWrite, file), -1);
  return real(file, bytes, size, offset);
}
ssize_t pwrite64(int file, const void* bytes, size_t size, off64_t offset) {
  REAL(pwrite64);
  HARM(injure_file(kWrite, file), -1);
  return real(file, bytes, size, offset);
}
ssize_t writev(int file, const struct iovec* parts, int count) {
  REAL(writev);
  HARM(injure_file(kWrite, file), -1);
  return real(file, parts, count);
}
size_t fwrite(const void* bytes, size_t size, size_t count, FILE* file) {
  REAL(fwrite);
  HARM(injure_file(kWrite, fileno(file)), 0);
  return real(bytes, size, count, file);
}
int ftruncate(int file, off_t size) {
  REAL(ftruncate);
  HARM(injure_file(kTruncate, file), -1);
  return real(file, size);
}
int ftruncate64(int file, off64_t size) {
  REAL(ftruncate64);
  HARM(injure_file(kTruncate, file), -1);
  return real(file, size);
}
int truncate(const char* path, off_t size) {
  REAL(truncate);
  HARM(injure_at(kTruncate, AT_FDCWD, path), -1);
  return real(path, size);
}
int fsync(int file) {
  REAL(fsync);
  HARM(injure_file(kFsync, file), -1);
  return real(file);
}
int fdatasync(int file) {
  REAL(fdatasync);
  HARM(injure_file(kFsync, file), -1);
  return real(file);
}

// --- Names ----------------------------------------------------------------------------------------------------------

int rename(const char* from, const char* to) {
  REAL(rename);
  HARM(injure_at(kRename, AT_FDCWD, to), -1);
  return real(from, to);
}
int renameat(int from_folder, const char* from, int to_folder, const char* to) {
  REAL(renameat);
  HARM(injure_at(kRename, to_folder, to), -1);
  return real(from_folder, from, to_folder, to);
}
int renameat2(int from_folder, const char* from, int to_folder, const char* to, unsigned flags) {
  REAL(renameat2);
  HARM(injure_at(kRename, to_folder, to), -1);
  return real(from_folder, from, to_folder, to, flags);
}
int mkdir(const char* path, mode_t mode) {
  REAL(mkdir);
  HARM(injure_at(kMkdir, AT_FDCWD, path), -1);
  return real(path, mode);
}
int mkdirat(int folder, const char* path, mode_t mode) {
  REAL(mkdirat);
  HARM(injure_at(kMkdir, folder, path), -1);
  return real(folder, path, mode);
}
int unlink(const char* path) {
  REAL(unlink);
  HARM(injure_at(kUnlink, AT_FDCWD, path), -1);
  return real(path);
}
int unlinkat(int folder, const char* path, int flags) {
  REAL(unlinkat);
  HARM(injure_at(kUnlink, folder, path), -1);
  return real(folder, path, flags);
}
int rmdir(const char* path) {
  REAL(rmdir);
  HARM(injure_at(kUnlink, AT_FDCWD, path), -1);
  return real(path);
}
int remove(const char* path) {
  REAL(remove);
  HARM(injure_at(kUnlink, AT_FDCWD, path), -1);
  return real(path);
}
int symlink(const char* target, const char* path) {
  REAL(symlink);
  HARM(injure_at(kSymlink, AT_FDCWD, path), -1);
  return real(target, path);
}
int link(const char* from, const char* to) {
  REAL(link);
  HARM(injure_at(kSymlink, AT_FDCWD, to), -1);
  return real(from, to);
}

// --- Opening to write -----------------------------------------------------------------------------------------------

static int is_written(int flags) { return (flags & O_ACCMODE) != O_RDONLY || (flags & O_CREAT); }

#define OPEN_BODY(name, folder, ...)                               \
  REAL(name);                                                      \
  mode_t mode = 0;                                                 \
  if (flags & (O_CREAT | __O_TMPFILE)) {                           \
    va_list rest;                                                  \
    va_start(rest, flags);                                         \
    mode = va_arg(rest, mode_t);                                   \
    va_end(rest);                                                  \
  }                                                                \
  if (is_written(flags)) HARM(injure_at(kOpen, folder, path), -1); \
  return real(__VA_ARGS__, flags, mode)

int open(const char* path, int flags, ...) { OPEN_BODY(open, AT_FDCWD, path); }
int open64(const char* path, int flags, ...) { OPEN_BODY(open64, AT_FDCWD, path); }
int openat(int folder, const char* path, int flags, ...) {
  OPEN_BODY(openat, folder, folder, path);
}
int openat64(int folder, const char* path, int flags, ...) {
  OPEN_BODY(openat64, folder, folder, path);
}
FILE* fopen(const char* path, const char* mode) {
  REAL(fopen);
  if (mode[0] != 'r' || strchr(mode, '+')) HARM(injure_at(kOpen, AT_FDCWD, path), NULL);
  return real(path, mode);
}
FILE* fopen64(const char* path, const char* mode) {
  REAL(fopen64);
  if (mode[0] != 'r' || strchr(mode, '+')) HARM(injure_at(kOpen, AT_FDCWD, path), NULL);
  return real(path, mode);
}

// --- The clock of the day -------------------------------------------------------------------------------------------

int clock_gettime(clockid_t clock, struct timespec* now) {
  REAL(clock_gettime);
  const int result = real(clock, now);
  if (result == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
    now->tv_sec += atomic_load(&ahead_s);
  return result;
}
int gettimeofday(struct timeval* restrict now, void* restrict zone) {
  REAL(gettimeofday);
  const int result = real(now, zone);
  if (result == 0) now->tv_sec += atomic_load(&ahead_s);
  return result;
}
time_t time(time_t* out) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  if (out) *out = now.tv_sec;
  return now.tv_sec;
}

// --- Where main begins: before, no program can answer a signal ------------------------------------------------------

int __libc_start_main(int (*main)(int, char**, char**), int argc, char** argv,
                      int (*init)(int, char**, char**), void (*fini)(void), void (*rtld_fini)(void),
                      void* stack_end) {
  __typeof__(&__libc_start_main) real =
      (__typeof__(&__libc_start_main))dlsym(RTLD_NEXT, "__libc_start_main");
  struct timespec now;
  syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &now);
  char line[64];
  const int size =
      snprintf(line, sizeof line, "%d main %ld%09ld\n", rank, (long)now.tv_sec, now.tv_nsec);
  tell(line, (size_t)size);
  return real(main, argc, argv, init, fini, rtld_fini, stack_end);
}
