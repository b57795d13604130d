/* See system.h. */
#define _GNU_SOURCE
#include "system.h"
#include "request.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77
#endif

uint64_t clock_now(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

uint64_t deadline_after(uint64_t now, uint64_t ms)
{
	if (ms > (UINT64_MAX - now) / 1000000)
		return UINT64_MAX;
	return now + ms * 1000000;
}

uint64_t deadline_renewed(uint64_t now, uint64_t lease_ms, uint64_t first, uint64_t max_ms)
{
	uint64_t wanted = deadline_after(now, lease_ms), last = deadline_after(first, max_ms);

	return wanted < last ? wanted : last;
}

bool read_line(const char *path, char *out, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t got;

	if (fd < 0)
		return false;
	got = read(fd, out, size - 1);
	close(fd);
	if (got < 0)
		return false;
	out[got] = '\0';
	out[strcspn(out, "\n")] = '\0';
	return true;
}

/* What follows the command name in /proc/PID/stat, or NULL; the name may hold spaces and brackets. */
static char *process_stat(pid_t pid, char *line, size_t size)
{
	char path[40], *at;

	snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
	if (!read_line(path, line, size))
		return NULL;
	at = strrchr(line, ')');
	return at == NULL ? NULL : at + 1;
}

bool process_is_ending(pid_t pid)
{
	char line[1024], *at = process_stat(pid, line, sizeof line);

	/* The main thread's state: it never waits in the kernel, and has ended when others may still be there. */
	return at == NULL || at[0] == '\0' || at[1] == 'Z' || at[1] == 'X';
}

uint64_t process_start_time(pid_t pid)
{
	char line[1024], *at = process_stat(pid, line, sizeof line);
	unsigned long long start;

	if (at == NULL ||
	    sscanf(at, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %*d %*d %llu", &start) != 1)
		return 0;
	return start;
}

int pidfd_of(pid_t pid)
{
	return (int)syscall(SYS_pidfd_open, pid, 0);
}

int peer_pidfd(int socket, pid_t pid)
{
	int fd = -1;
	socklen_t size = sizeof fd;

	if (getsockopt(socket, SOL_SOCKET, SO_PEERPIDFD, &fd, &size) == 0 && fd >= 0)
		return fd;
	return pid > 0 ? pidfd_of(pid) : -1;
}

int pidfd_kill(int pidfd)
{
	return (int)syscall(SYS_pidfd_send_signal, pidfd, SIGKILL, NULL, 0);
}

bool pidfd_ended(int pidfd, int wait_ms)
{
	struct pollfd poll_fd = { .fd = pidfd, .events = POLLIN };

	return poll(&poll_fd, 1, wait_ms) == 1;
}

/* ID PARENT MAJOR:MINOR ROOT POINT OPTIONS [OPTIONAL...] - TYPE SOURCE SUPER */
static bool parse_mount(char *line, struct mount *out)
{
	char *save = NULL, *word = strtok_r(line, " \n", &save);

	for (int field = 0; word != NULL; field++, word = strtok_r(NULL, " \n", &save)) {
		if (field == 0 && parse_decimal(word, &out->id) < 0)
			return false;
		if (field == 2 && parse_device(word, &out->major, &out->minor) < 0)
			return false;
		if (field == 4)
			out->point = word;
		if (field >= 6 && strcmp(word, "-") == 0) {
			out->type = strtok_r(NULL, " \n", &save);
			return out->type != NULL;
		}
	}
	return false;
}

/* mountinfo leaves bytes above 0x7e as they are, so word_unescape() does not fit. */
static void unescape_point(char *text)
{
	char *to = text;

	for (char *from = text; *from != '\0';) {
		if (from[0] == '\\' && from[1] != '\0' && from[2] != '\0' && from[3] != '\0') {
			*to++ = (char)(((from[1] & 7) << 6) | ((from[2] & 7) << 3) | (from[3] & 7));
			from += 4;
		} else {
			*to++ = *from++;
		}
	}
	*to = '\0';
}

int mounts_each(bool (*take)(const struct mount *, void *), void *context)
{
	FILE *file = fopen("/proc/self/mountinfo", "re");
	char *line = NULL;
	size_t size = 0;
	int taken = 0;

	if (file == NULL)
		return -1;
	while (!taken && getline(&line, &size, file) >= 0) {
		struct mount mount = { 0 };

		if (!parse_mount(line, &mount))
			continue;
		unescape_point(mount.point);
		taken = take(&mount, context);
	}
	free(line);
	fclose(file);
	return taken;
}

int open_mount_point(const char *path)
{
	return open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_DIRECTORY);
}

uint64_t mount_id_of(int fd)
{
	char path[48], text[512], *at;
	int info;
	ssize_t got;

	snprintf(path, sizeof path, "/proc/self/fdinfo/%d", fd);
	info = open(path, O_RDONLY | O_CLOEXEC);
	if (info < 0)
		return 0;
	got = read(info, text, sizeof text - 1);
	close(info);
	text[got > 0 ? got : 0] = '\0';
	at = strstr(text, "mnt_id:");
	return at == NULL ? 0 : strtoull(at + 7, NULL, 10);
}

bool in_memory(int fd)
{
	struct statfs kind;

	return fstatfs(fd, &kind) == 0 &&
	       ((unsigned long)kind.f_type == TMPFS_MAGIC || (unsigned long)kind.f_type == RAMFS_MAGIC);
}
