/*
 * What the freezer asks of the machine besides the three calls on filesystems:
 * the clock, process identities, the mount table, the kind of a filesystem.
 */
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

/* Field 22 of /proc/PID/stat; 0 if there is no such process. With the pid, names one process of this boot. */
uint64_t process_start_time(pid_t pid);

/* Killed, and perhaps still inside the kernel: it will do nothing more by itself. */
bool process_is_ending(pid_t pid);

/* A pidfd, or -1. The kernel's own for the other end of SOCKET where it has SO_PEERPIDFD (6.5), else by PID. */
int peer_pidfd(int socket, pid_t pid);
int pidfd_of(pid_t pid);
int pidfd_kill(int pidfd);
/* True if every thread of the process has ended, also those that were inside the kernel. */
bool pidfd_ended(int pidfd, int wait_ms);

struct mount {
	uint64_t id;
	uint32_t major, minor;
	char *point; /* unescaped */
	char *type;
};

/* Calls TAKE for each line of /proc/self/mountinfo until it returns true. -1 with errno, 0 not taken, 1 taken. */
int mounts_each(bool (*take)(const struct mount *, void *), void *context);

/* O_RDONLY|O_NONBLOCK|O_CLOEXEC|O_DIRECTORY; -1 with errno. */
int open_mount_point(const char *path);
/* The mount id of an open file; 0 if it cannot be learnt. */
uint64_t mount_id_of(int fd);

/* tmpfs or ramfs: what still takes writes when every disk filesystem is frozen. */
bool in_memory(int fd);

/* The first line of a small file without its newline; false if it cannot be read. */
bool read_line(const char *path, char *out, size_t size);

#endif
