/* See runtime-folder.h. */
#define _GNU_SOURCE
#include "runtime-folder.h"
#include "request.h"
#include "resident.h"
#include "system.h"

#include <errno.h>
#include <libgen.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { START_LOCK_MS = 15 * 1000 };

/* Where others may write, they may put names: a socket or a marker of theirs in place of ours. */
static bool only_ours(int fd)
{
	struct stat status;

	return fstat(fd, &status) == 0 && (status.st_uid == 0 || status.st_uid == geteuid()) &&
	       (status.st_mode & (S_IWGRP | S_IWOTH)) == 0;
}

int runtime_folder_open(const char *path, bool any)
{
	char copy[PATH_MAX_BYTES + 1], *folder;
	int fd;

	if (strlen(path) >= sizeof copy) {
		fail("path", strerror(ENAMETOOLONG));
		return -1;
	}
	folder = dirname(strcpy(copy, path));
	if (mkdir(folder, 0755) < 0 && errno != EEXIST) {
		fail(folder, strerror(errno));
		return -1;
	}
	fd = open_mount_point(folder);
	if (fd < 0) {
		fail(folder, strerror(errno));
	} else if (!in_memory(fd) && !any) {
		fail(folder, "expected tmpfs or ramfs, found another filesystem: it could be frozen");
		close(fd);
		fd = -1;
	} else if (!only_ours(fd) && !any) {
		fail(folder, "expected a folder that belongs to root and that nobody else may write to");
		close(fd);
		fd = -1;
	}
	return fd;
}

bool runtime_folder_lock(int folder)
{
	for (int waited = 0; flock(folder, LOCK_EX | LOCK_NB) < 0; waited += 100) {
		if (waited >= START_LOCK_MS) {
			fail("start", "another freezer has been starting for 15 s");
			return false;
		}
		nanosleep(&(struct timespec){ .tv_nsec = 100 * 1000000 }, NULL);
	}
	return true;
}
