/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * A FUSE file system that shows the files of one directory, for what the kernel
 * does with such files:
 *
 *   small-fuse MODE SOURCE LOG MOUNTPOINT
 *
 * MODE is "cached" (the kernel writes through), "direct_io" (it caches nothing,
 * and sends no FSYNC for RWF_DSYNC), or "writeback" (it keeps what is written, and
 * asks for holes without it). Each write and each sync that arrives here adds a
 * line to LOG: "write NAME OFFSET+LENGTH", "fsync NAME". Stays in the foreground
 * until it is unmounted.
 */

#define _GNU_SOURCE
#define FUSE_USE_VERSION 31

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fuse.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char *mode;
static int source = -1;
static int log_fd = -1;

static int result (int value) { return value == -1 ? -errno : 0; }

/* Relative to the source: PATH begins with a slash. */
static const char *name_of (const char *path) { return path[1] ? path + 1 : "."; }

static void
note (const char *line)
{
  if (write (log_fd, line, strlen (line)) < 0)
    abort ();
}

static void *
on_init (struct fuse_conn_info *connection, struct fuse_config *config)
{
  config->use_ino = 1;
  config->direct_io = strcmp (mode, "direct_io") == 0;
  if (strcmp (mode, "writeback") == 0) {
    if (!(connection->capable & FUSE_CAP_WRITEBACK_CACHE))
      abort ();
    connection->want |= FUSE_CAP_WRITEBACK_CACHE;
    config->kernel_cache = 1; /* else opening a file writes out what is cached */
  }
  return NULL;
}

static int
on_getattr (const char *path, struct stat *st, struct fuse_file_info *file)
{
  if (file)
    return result (fstat ((int) file->fh, st));
  return result (fstatat (source, name_of (path), st, AT_SYMLINK_NOFOLLOW));
}

static int
on_readdir (const char *path, void *buffer, fuse_fill_dir_t fill, off_t offset,
            struct fuse_file_info *file, enum fuse_readdir_flags flags)
{
  (void) offset;
  (void) file;
  (void) flags;
  int fd = openat (source, name_of (path), O_RDONLY | O_DIRECTORY);
  DIR *directory = fd < 0 ? NULL : fdopendir (fd);
  if (directory == NULL)
    return -errno;
  for (struct dirent *entry; (entry = readdir (directory)) != NULL;)
    fill (buffer, entry->d_name, NULL, 0, 0);
  closedir (directory);
  return 0;
}

static int
open_as (const char *path, int flags, mode_t permissions, struct fuse_file_info *file)
{
  /* With its write-back cache the kernel reads around what is written. */
  if ((flags & O_ACCMODE) == O_WRONLY)
    flags = (flags & ~O_ACCMODE) | O_RDWR;
  int fd = openat (source, name_of (path), flags & ~(O_APPEND | O_DIRECT), permissions);
  if (fd < 0)
    return -errno;
  file->fh = (uint64_t) fd;
  return 0;
}

static int
on_open (const char *path, struct fuse_file_info *file)
{
  return open_as (path, file->flags, 0, file);
}

static int
on_create (const char *path, mode_t permissions, struct fuse_file_info *file)
{
  return open_as (path, file->flags | O_CREAT, permissions, file);
}

static int
on_release (const char *path, struct fuse_file_info *file)
{
  (void) path;
  close ((int) file->fh);
  return 0;
}

static int
on_read (const char *path, char *buffer, size_t size, off_t offset,
         struct fuse_file_info *file)
{
  (void) path;
  ssize_t count = pread ((int) file->fh, buffer, size, offset);
  return count < 0 ? -errno : (int) count;
}

static int
on_write (const char *path, const char *buffer, size_t size, off_t offset,
          struct fuse_file_info *file)
{
  char line[PATH_MAX + 64];
  ssize_t count = pwrite ((int) file->fh, buffer, size, offset);
  if (count < 0)
    return -errno;
  snprintf (line, sizeof line, "write %s %lld+%zd\n", path ? name_of (path) : "?",
            (long long) offset, count);
  note (line);
  return (int) count;
}

static int
on_fsync (const char *path, int only_data, struct fuse_file_info *file)
{
  char line[PATH_MAX + 64];
  (void) only_data;
  snprintf (line, sizeof line, "fsync %s\n", path ? name_of (path) : "?");
  note (line);
  return result (fdatasync ((int) file->fh));
}

static int
on_truncate (const char *path, off_t size, struct fuse_file_info *file)
{
  if (file)
    return result (ftruncate ((int) file->fh, size));
  int fd = openat (source, name_of (path), O_WRONLY);
  if (fd < 0)
    return -errno;
  int done = result (ftruncate (fd, size));
  close (fd);
  return done;
}

static int
on_fallocate (const char *path, int how, off_t offset, off_t length,
              struct fuse_file_info *file)
{
  (void) path;
  return result (fallocate ((int) file->fh, how, offset, length));
}

static off_t
on_lseek (const char *path, off_t offset, int whence, struct fuse_file_info *file)
{
  (void) path;
  off_t found = lseek ((int) file->fh, offset, whence);
  return found < 0 ? -errno : found;
}

static int
on_rename (const char *from, const char *to, unsigned flags)
{
  return result (renameat2 (source, name_of (from), source, name_of (to), flags));
}

static int
on_unlink (const char *path)
{
  return result (unlinkat (source, name_of (path), 0));
}

static int
on_chmod (const char *path, mode_t permissions, struct fuse_file_info *file)
{
  (void) file;
  return result (fchmodat (source, name_of (path), permissions, 0));
}

static int
on_utimens (const char *path, const struct timespec times[2], struct fuse_file_info *file)
{
  (void) file;
  return result (utimensat (source, name_of (path), times, AT_SYMLINK_NOFOLLOW));
}

static const struct fuse_operations operations = {
  .init = on_init,
  .getattr = on_getattr,
  .readdir = on_readdir,
  .open = on_open,
  .create = on_create,
  .release = on_release,
  .read = on_read,
  .write = on_write,
  .fsync = on_fsync,
  .truncate = on_truncate,
  .fallocate = on_fallocate,
  .lseek = on_lseek,
  .rename = on_rename,
  .unlink = on_unlink,
  .chmod = on_chmod,
  .utimens = on_utimens,
};

int
main (int argc, char *argv[])
{
  if (argc != 5 || (strcmp (argv[1], "cached") != 0 && strcmp (argv[1], "direct_io") != 0 &&
                    strcmp (argv[1], "writeback") != 0)) {
    fprintf (stderr, "usage: small-fuse cached|direct_io|writeback SOURCE LOG MOUNTPOINT\n");
    return 2;
  }
  mode = argv[1];
  source = open (argv[2], O_RDONLY | O_DIRECTORY);
  log_fd = open (argv[3], O_WRONLY | O_CREAT | O_APPEND, 0666);
  if (source < 0 || log_fd < 0) {
    perror (source < 0 ? argv[2] : argv[3]);
    return 1;
  }
  char foreground[] = "-f";
  char *arguments[] = {argv[0], foreground, argv[4], NULL};
  return fuse_main (3, arguments, &operations, NULL);
}
