/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * For LD_PRELOAD: makes system calls of a real nbdkit or addcow fail.
 *
 * $ADDCOW_FAULT names a file with one line,
 *
 *   CALL AT ERROR PART
 *
 * CALL is a function's name below, "any", or "loss". AT is the number of the first
 * matching call that fails, counted from when the line was written; "3+" means
 * that one and all later ones. ERROR is an errno's number; 0 makes pread and
 * pwrite transfer half, and touches no other call; -2 sends the process signal 2
 * (SIGINT) just before the call, which does not fail. Only calls on files whose
 * path has PART in it match; the path of pthread_create is "thread". While there is no such file nothing fails, so a
 * test turns faults on and off under a running server. Each fault adds a line
 * to $ADDCOW_FAULT.hits.
 *
 * "loss": data of the file did not get to the disk. As the kernel does on NFS,
 * each descriptor is told once, by whichever of its pwrite, pwritev2, fdatasync
 * and fsync comes first. AT is 1.
 *
 * In C, and not built with a sanitizer: it must not need a run-time of its own.
 */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/vfs.h>
#include <unistd.h>

/* The function that is stood in for. */
#define REAL(name) ((__typeof__ (&name)) dlsym (RTLD_NEXT, #name))

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char last_line[512];
static unsigned long count;

/* Raw system calls: the functions are stood in for. */
static ssize_t
read_line (const char *path, char *line, size_t size)
{
  int fd = (int) syscall (SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return -1;
  ssize_t n = syscall (SYS_read, fd, line, size - 1);
  syscall (SYS_close, fd);
  if (n >= 0) line[n] = 0;
  return n;
}

static void
note_hit (const char *control, const char *call, const char *path)
{
  char name[PATH_MAX], line[PATH_MAX + 64];
  snprintf (name, sizeof name, "%s.hits", control);
  int n = snprintf (line, sizeof line, "%s %s\n", call, path);
  int fd = (int) syscall (SYS_openat, AT_FDCWD, name,
                          O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
  if (fd < 0 || syscall (SYS_write, fd, line, n) != n) abort ();
  syscall (SYS_close, fd);
}

/* The errno that this call is to fail with, 0 for a short transfer, or less. */
static int
fault (const char *call, const char *path)
{
  const char *control = getenv ("ADDCOW_FAULT");
  char line[sizeof last_line], want[32], at[32], part[256];
  int error, result = -1;
  int saved = errno;

  if (control == NULL || read_line (control, line, sizeof line) <= 0)
    goto out;
  if (sscanf (line, "%31s %31s %d %255s", want, at, &error, part) != 4)
    abort ();
  if (strcmp (want, "any") != 0 && strcmp (want, call) != 0) goto out;
  if (strstr (path, part) == NULL) goto out;
  if (error == 0 && strcmp (call, "pread") != 0 && strcmp (call, "pwrite") != 0)
    goto out;
  pthread_mutex_lock (&lock);
  if (strcmp (line, last_line) != 0) {
    strcpy (last_line, line);
    count = 0;
  }
  count++;
  unsigned long first = strtoul (at, NULL, 10);
  if (count == first || (count > first && strchr (at, '+') != NULL)) {
    note_hit (control, call, path);
    result = error;
    if (error < 0) raise (-error);
  }
  pthread_mutex_unlock (&lock);
out:
  errno = saved;
  return result;
}

#define MAX_FDS 1024

/* The errno of a loss that this descriptor has not been told of, or -1. */
static int
loss (const char *call, int fd, const char *path)
{
  static char told_line[sizeof last_line];
  static bool told[MAX_FDS];
  const char *control = getenv ("ADDCOW_FAULT");
  char line[sizeof last_line], part[256];
  int error, result = -1;

  if (control == NULL || fd >= MAX_FDS ||
      read_line (control, line, sizeof line) <= 0 ||
      sscanf (line, "loss 1 %d %255s", &error, part) != 2 ||
      strstr (path, part) == NULL)
    return -1;
  pthread_mutex_lock (&lock);
  if (strcmp (line, told_line) != 0) {
    strcpy (told_line, line);
    memset (told, 0, sizeof told);
  }
  if (!told[fd]) {
    told[fd] = true;
    note_hit (control, call, path);
    result = error;
  }
  pthread_mutex_unlock (&lock);
  return result;
}

static bool
tells_losses (const char *call)
{
  return strcmp (call, "pwrite") == 0 || strcmp (call, "pwritev2") == 0 ||
    strcmp (call, "fdatasync") == 0 || strcmp (call, "fsync") == 0;
}

static int
fault_fd (const char *call, int fd)
{
  char link[64], path[PATH_MAX] = "";
  int saved = errno, error = -1;
  snprintf (link, sizeof link, "/proc/self/fd/%d", fd);
  if (syscall (SYS_readlinkat, AT_FDCWD, link, path, sizeof path - 1) < 0) {
    errno = saved;
    return -1;
  }
  if (tells_losses (call))
    error = loss (call, fd, path);
  errno = saved;
  return error > 0 ? error : fault (call, path);
}

/* Returns from the calling function where the call is to fail. */
#define FAIL_IF(expr)            \
  do {                           \
    int error_ = (expr);         \
    if (error_ > 0) {            \
      errno = error_;            \
      return -1;                 \
    }                            \
  } while (0)

static size_t
transfer (size_t n, int error)
{
  return error == 0 && n > 1 ? n / 2 : n;
}

ssize_t
pread (int fd, void *buffer, size_t n, off_t offset)
{
  int error = fault_fd ("pread", fd);
  FAIL_IF (error);
  return REAL (pread) (fd, buffer, transfer (n, error), offset);
}

ssize_t
pwrite (int fd, const void *buffer, size_t n, off_t offset)
{
  int error = fault_fd ("pwrite", fd);
  FAIL_IF (error);
  return REAL (pwrite) (fd, buffer, transfer (n, error), offset);
}

ssize_t
pwritev2 (int fd, const struct iovec *parts, int count, off_t offset, int flags)
{
  FAIL_IF (fault_fd ("pwritev2", fd));
  return REAL (pwritev2) (fd, parts, count, offset, flags);
}

int
fstatfs (int fd, struct statfs *st)
{
  FAIL_IF (fault_fd ("fstatfs", fd));
  return REAL (fstatfs) (fd, st);
}

int
fallocate (int fd, int mode, off_t offset, off_t length)
{
  FAIL_IF (fault_fd ("fallocate", fd));
  return REAL (fallocate) (fd, mode, offset, length);
}

int
fdatasync (int fd)
{
  FAIL_IF (fault_fd ("fdatasync", fd));
  return REAL (fdatasync) (fd);
}

int
fsync (int fd)
{
  FAIL_IF (fault_fd ("fsync", fd));
  return REAL (fsync) (fd);
}

int
sync_file_range (int fd, off_t offset, off_t length, unsigned int flags)
{
  FAIL_IF (fault_fd ("sync_file_range", fd));
  return REAL (sync_file_range) (fd, offset, length, flags);
}

off_t
lseek (int fd, off_t offset, int whence)
{
  FAIL_IF (fault_fd ("lseek", fd));
  return REAL (lseek) (fd, offset, whence);
}

int
ftruncate (int fd, off_t size)
{
  FAIL_IF (fault_fd ("ftruncate", fd));
  return REAL (ftruncate) (fd, size);
}

int
posix_fadvise (int fd, off_t offset, off_t length, int advice)
{
  int error = fault_fd ("posix_fadvise", fd);
  if (error > 0) return error; /* not through errno */
  return REAL (posix_fadvise) (fd, offset, length, advice);
}

int
fstat (int fd, struct stat *st)
{
  FAIL_IF (fault_fd ("fstat", fd));
  return REAL (fstat) (fd, st);
}

int
stat (const char *path, struct stat *st)
{
  FAIL_IF (fault ("stat", path));
  return REAL (stat) (path, st);
}

int
lstat (const char *path, struct stat *st)
{
  FAIL_IF (fault ("lstat", path));
  return REAL (lstat) (path, st);
}

int
open (const char *path, int flags, ...)
{
  mode_t mode = 0;
  if (flags & O_CREAT) {
    va_list args;
    va_start (args, flags);
    mode = va_arg (args, mode_t);
    va_end (args);
  }
  /* What was looked at with O_PATH is opened so. */
  static const char by_fd[] = "/proc/self/fd/";
  const size_t prefix = sizeof by_fd - 1;
  if (strncmp (path, by_fd, prefix) == 0)
    FAIL_IF (fault_fd ("open", atoi (path + prefix)));
  else
    FAIL_IF (fault ("open", path));
  return REAL (open) (path, flags, mode);
}

char *
realpath (const char *path, char *resolved)
{
  int error = fault ("realpath", path);
  if (error > 0) {
    errno = error;
    return NULL;
  }
  return REAL (realpath) (path, resolved);
}

int
rename (const char *from, const char *to)
{
  FAIL_IF (fault ("rename", to));
  return REAL (rename) (from, to);
}

int
renameat2 (int from_fd, const char *from, int to_fd, const char *to,
           unsigned flags)
{
  FAIL_IF (fault ("renameat2", to));
  return REAL (renameat2) (from_fd, from, to_fd, to, flags);
}

int
link (const char *from, const char *to)
{
  FAIL_IF (fault ("link", to));
  return REAL (link) (from, to);
}

int
unlink (const char *path)
{
  FAIL_IF (fault ("unlink", path));
  return REAL (unlink) (path);
}

int
chdir (const char *path)
{
  FAIL_IF (fault ("chdir", path));
  return REAL (chdir) (path);
}

int
pthread_create (pthread_t *thread, const pthread_attr_t *attr,
                void *(*start) (void *), void *arg)
{
  int error = fault ("pthread_create", "thread");
  if (error > 0) return error; /* not through errno */
  return REAL (pthread_create) (thread, attr, start, arg);
}
