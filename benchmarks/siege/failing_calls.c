/* Numbers the calls that change or open files below FAILING_ROOT, over all processes, and lets one of them fail.

   FAILING_COUNT  a file of 8 bytes, the number of the last call
   FAILING_LOG    a file that gets "NUMBER NAME PATH" for each call
   FAILING_CALL   the number of the call that fails, with errno FAILING_ERRNO
   FAILING_SIGNAL instead of failing, the process gets this signal right before the call
*/
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static int raw_open(const char *path, int flags) { return (int)syscall(SYS_openat, AT_FDCWD, path, flags, 0600); }

static uint64_t counted(const char *file) {
  int handle = raw_open(file, O_RDWR | O_CREAT | O_CLOEXEC);
  if (handle < 0) return 0;
  syscall(SYS_ftruncate, handle, 8);
  uint64_t *number = mmap(NULL, 8, PROT_READ | PROT_WRITE, MAP_SHARED, handle, 0);
  syscall(SYS_close, handle);
  if (number == MAP_FAILED) return 0;
  uint64_t now = __atomic_add_fetch(number, 1, __ATOMIC_SEQ_CST);
  munmap(number, 8);
  return now;
}

/* Whether this call is the one that fails; errno is set then. */
static int fails_at(const char *name, const char *path) {
  const char *root = getenv("FAILING_ROOT"), *count = getenv("FAILING_COUNT"), *log = getenv("FAILING_LOG");
  if (!root || !count || !log || strncmp(path, root, strlen(root)) || path[strlen(root)] != '/') return 0;
  int kept = errno;
  uint64_t number = counted(count);
  char line[PATH_MAX + 64];
  int length = snprintf(line, sizeof line, "%llu %s %s\n", (unsigned long long)number, name, path + strlen(root) + 1);
  int handle = raw_open(log, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC);
  if (handle >= 0) {
    if (length > 0) syscall(SYS_write, handle, line, (size_t)length < sizeof line ? (size_t)length : sizeof line - 1);
    syscall(SYS_close, handle);
  }
  errno = kept;
  const char *which = getenv("FAILING_CALL"), *with = getenv("FAILING_ERRNO"), *dies = getenv("FAILING_SIGNAL");
  if (!which || strtoull(which, NULL, 10) != number) return 0;
  if (dies) kill(getpid(), atoi(dies));
  if (!with) return errno = kept, 0;
  errno = atoi(with);
  return 1;
}

static int linked(int handle, char *path) {
  char link[64];
  snprintf(link, sizeof link, "/proc/self/fd/%d", handle);
  ssize_t length = readlink(link, path, PATH_MAX - 1);
  path[length > 0 ? length : 0] = 0;
  return length > 0;
}

static int fails_on(const char *name, int handle) {
  char path[PATH_MAX];
  int kept = errno;
  if (!getenv("FAILING_ROOT") || !linked(handle, path)) return errno = kept, 0;
  errno = kept;
  return fails_at(name, path);
}

static int fails(const char *name, int folder, const char *path) {
  char whole[2 * PATH_MAX], place[PATH_MAX];
  if (!getenv("FAILING_ROOT") || !path) return 0;
  if (path[0] == '/') return fails_at(name, path);
  int kept = errno;
  int known = folder == AT_FDCWD ? getcwd(place, sizeof place) != NULL : linked(folder, place);
  errno = kept;
  if (!known) return 0;
  snprintf(whole, sizeof whole, "%s/%s", place, path);
  return fails_at(name, whole);
}

#define MODE(flags, last) \
  mode_t mode = 0; \
  if ((flags) & (O_CREAT | __O_TMPFILE)) { va_list more; va_start(more, last); mode = va_arg(more, mode_t); va_end(more); }

int open(const char *path, int flags, ...) {
  MODE(flags, flags)
  return fails("open", AT_FDCWD, path) ? -1 : NEXT(open)(path, flags, mode);
}
int open64(const char *path, int flags, ...) {
  MODE(flags, flags)
  return fails("open", AT_FDCWD, path) ? -1 : NEXT(open64)(path, flags, mode);
}
int openat(int folder, const char *path, int flags, ...) {
  MODE(flags, flags)
  return fails("open", folder, path) ? -1 : NEXT(openat)(folder, path, flags, mode);
}
int openat64(int folder, const char *path, int flags, ...) {
  MODE(flags, flags)
  return fails("open", folder, path) ? -1 : NEXT(openat64)(folder, path, flags, mode);
}
int mkdir(const char *path, mode_t mode) { return fails("mkdir", AT_FDCWD, path) ? -1 : NEXT(mkdir)(path, mode); }
int rmdir(const char *path) { return fails("unlink", AT_FDCWD, path) ? -1 : NEXT(rmdir)(path); }
int unlink(const char *path) { return fails("unlink", AT_FDCWD, path) ? -1 : NEXT(unlink)(path); }
int unlinkat(int folder, const char *path, int flags) {
  return fails("unlink", folder, path) ? -1 : NEXT(unlinkat)(folder, path, flags);
}
int rename(const char *from, const char *to) { return fails("rename", AT_FDCWD, to) ? -1 : NEXT(rename)(from, to); }
int renameat(int one, const char *from, int other, const char *to) {
  return fails("rename", other, to) ? -1 : NEXT(renameat)(one, from, other, to);
}
int link(const char *from, const char *to) { return fails("link", AT_FDCWD, to) ? -1 : NEXT(link)(from, to); }
int fsync(int handle) { return fails_on("fsync", handle) ? -1 : NEXT(fsync)(handle); }
int fdatasync(int handle) { return fails_on("fsync", handle) ? -1 : NEXT(fdatasync)(handle); }
int ftruncate64(int handle, off64_t size) { return fails_on("truncate", handle) ? -1 : NEXT(ftruncate64)(handle, size); }
ssize_t write(int handle, const void *bytes, size_t count) {
  return fails_on("write", handle) ? -1 : NEXT(write)(handle, bytes, count);
}
ssize_t pwrite64(int handle, const void *bytes, size_t count, off64_t at) {
  return fails_on("write", handle) ? -1 : NEXT(pwrite64)(handle, bytes, count, at);
}
ssize_t writev(int handle, const struct iovec *parts, int count) {
  return fails_on("write", handle) ? -1 : NEXT(writev)(handle, parts, count);
}
