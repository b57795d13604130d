/* See system.h. */
#define _GNU_SOURCE
#include "system.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

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

enum { OLDEST_MAJOR = 4, OLDEST_MINOR = 18 };

const char *kernel_too_old(const char *release)
{
	static char text[128];
	unsigned major = 0, minor = 0;

	/* One whose release cannot be read is taken for a new one. */
	if (sscanf(release, "%u.%u", &major, &minor) != 2 || major > OLDEST_MAJOR ||
	    (major == OLDEST_MAJOR && minor >= OLDEST_MINOR))
		return NULL;
	snprintf(text, sizeof text, "expected Linux %d.%d or newer, found %.60s", OLDEST_MAJOR, OLDEST_MINOR, release);
	return text;
}
