/* What else the freezer asks of the machine: the clock, deadlines, a mount point opened, a small file read. */
#ifndef FREEZER_SYSTEM_H
#define FREEZER_SYSTEM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* Nanoseconds on CLOCK_MONOTONIC: running time, which a paused or saved VM does not spend. */
uint64_t clock_now(void);

/* NOW + MS, at most UINT64_MAX. */
uint64_t deadline_after(uint64_t now, uint64_t ms);

/* A lease renewed at NOW: never beyond FIRST + MAX_MS. */
uint64_t deadline_renewed(uint64_t now, uint64_t lease_ms, uint64_t first, uint64_t max_ms);

/* O_RDONLY|O_NONBLOCK|O_CLOEXEC|O_DIRECTORY; -1 with errno. */
int open_mount_point(const char *path);
/* The mount id of an open file; 0 if it cannot be learnt. */
uint64_t mount_id_of(int fd);

/* tmpfs or ramfs: what still takes writes when every disk filesystem is frozen. */
bool in_memory(int fd);

/* NULL, or what this kernel is too old for. */
const char *kernel_too_old(const char *release);

/* The first line of a small file without its newline; false if it cannot be read. */
bool read_line(const char *path, char *out, size_t size);

#endif
