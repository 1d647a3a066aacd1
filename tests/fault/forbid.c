/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * forbid ERROR CALL... -- COMMAND...
 *
 * Runs COMMAND in a sandbox (seccomp) in which each CALL fails with the errno
 * ERROR, as in a container whose profile does not know the call: EPERM, or
 * ENOSYS. In the kernel, so nothing gets around it. Exit status 77: there are no
 * such sandboxes here.
 */

#include <errno.h>
#include <linux/audit.h>
#include <linux/fiemap.h>
#include <linux/filter.h>
#include <linux/fs.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

/* `argument`: that of the call that has to be `value`, or -1. */
struct call {
  const char *name;
  long number;
  int argument;
  uint32_t value;
};

static const struct call calls[] = {
  { "pwritev2", SYS_pwritev2, -1, 0 },
  { "fallocate", SYS_fallocate, -1, 0 },
  { "openat2", SYS_openat2, -1, 0 },
  { "renameat2", SYS_renameat2, -1, 0 },
  { "sync_file_range", SYS_sync_file_range, -1, 0 },
  { "fadvise64", SYS_fadvise64, -1, 0 },
  { "fstatfs", SYS_fstatfs, -1, 0 },
  { "prlimit64", SYS_prlimit64, -1, 0 },
  { "prlimit_fsize", SYS_prlimit64, 1, RLIMIT_FSIZE },
  { "statx", SYS_statx, -1, 0 },
  { "copy_file_range", SYS_copy_file_range, -1, 0 },
  { "ficlonerange", SYS_ioctl, 1, FICLONERANGE },
  { "fiemap", SYS_ioctl, 1, FS_IOC_FIEMAP },
  { "blkroget", SYS_ioctl, 1, BLKROGET },
  { "seek_data", SYS_lseek, 2, SEEK_DATA },
  { "seek_hole", SYS_lseek, 2, SEEK_HOLE },
};

#define LOAD(field) \
  BPF_STMT (BPF_LD | BPF_W | BPF_ABS, offsetof (struct seccomp_data, field))

int
main (int argc, char **argv)
{
  struct sock_filter filter[8 * sizeof calls / sizeof calls[0]];
  size_t n = 0;
  int i = 2;

  if (argc < 5) goto usage;
  const uint32_t error = SECCOMP_RET_ERRNO | (uint32_t) atoi (argv[1]);
  for (; i < argc && strcmp (argv[i], "--") != 0; i++) {
    const struct call *call = calls;
    const struct call *const end = calls + sizeof calls / sizeof calls[0];
    while (call < end && strcmp (call->name, argv[i]) != 0) call++;
    if (call == end || n + 8 > sizeof filter / sizeof filter[0]) goto usage;
    const struct sock_filter load = LOAD (nr);
    const struct sock_filter is_call = BPF_JUMP (
        BPF_JMP | BPF_JEQ | BPF_K, (uint32_t) call->number, 0,
        call->argument < 0 ? 1 : 3);
    const struct sock_filter fail = BPF_STMT (BPF_RET | BPF_K, error);
    filter[n++] = load;
    filter[n++] = is_call;
    if (call->argument >= 0) {
      /* The low half: the machines that this is for are little endian. */
      const struct sock_filter argument = BPF_STMT (
          BPF_LD | BPF_W | BPF_ABS,
          (uint32_t) (offsetof (struct seccomp_data, args)
                      + 8 * (size_t) call->argument));
      const struct sock_filter is_value = BPF_JUMP (
          BPF_JMP | BPF_JEQ | BPF_K, call->value, 0, 1);
      filter[n++] = argument;
      filter[n++] = is_value;
    }
    filter[n++] = fail;
  }
  if (i + 1 >= argc) goto usage;
  filter[n++] = (struct sock_filter) BPF_STMT (BPF_RET | BPF_K,
                                               SECCOMP_RET_ALLOW);
  struct sock_fprog program = { (unsigned short) n, filter };
  if (prctl (PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0
      || prctl (PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0) {
    perror ("seccomp");
    return 77;
  }
  execvp (argv[i + 1], argv + i + 1);
  perror (argv[i + 1]);
  return 127;

usage:
  fprintf (stderr, "forbid ERROR CALL... -- COMMAND...\n");
  return 64;
}
