/* The calls on filesystems as the kernel answers them: see worker.h, `struct kernel_calls`. */
#define _GNU_SOURCE
#include "system.h"
#include "worker.h"

#include <errno.h>
#include <linux/fs.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

static int check(const struct request *request, struct mount_kind *mount, char *text, size_t size)
{
	int known = mount_find(request->mount_id, mount);

	if (known < 0) {
		snprintf(text, size, "fs: /proc/self/mountinfo cannot be read: %s", strerror(errno));
		return EIO;
	}
	if (!known) {
		snprintf(text, size, "fs: expected mount %llu, found no such mount",
			 (unsigned long long)request->mount_id);
		return ESTALE;
	}
	if (mount->never_opened) {
		snprintf(text, size, "fs: network, FUSE and autofs mounts are never opened");
		return EOPNOTSUPP;
	}
	return 0;
}

static int open_compared(const struct request *request, int *fd, uint64_t *device, char *text, size_t size)
{
	struct stat status;

	*fd = open_mount_point(request->path);
	if (*fd < 0) {
		int error = errno;

		snprintf(text, size, "fs: cannot open the mount point: %s", strerror(error));
		return error;
	}
	if (mount_id_of(*fd) != request->mount_id) {
		snprintf(text, size, "fs: expected mount %llu at this path, found %llu",
			 (unsigned long long)request->mount_id, (unsigned long long)mount_id_of(*fd));
		return ESTALE;
	}
	if (fstat(*fd, &status) < 0) {
		snprintf(text, size, "fs: fstat: %s", strerror(errno));
		return EIO;
	}
	*device = status.st_dev;
	if ((request->major != 0 || request->minor != 0) &&
	    (major(status.st_dev) != request->major || minor(status.st_dev) != request->minor)) {
		snprintf(text, size, "fs: expected device %u:%u at this path, found %u:%u", request->major,
			 request->minor, major(status.st_dev), minor(status.st_dev));
		return ESTALE;
	}
	return 0;
}

static int freeze(int fd)
{
	return ioctl(fd, FIFREEZE, 0) < 0 ? errno : 0;
}

static int thaw(int fd)
{
	return ioctl(fd, FITHAW, 0) < 0 ? errno : 0;
}

static int sync_one(int fd)
{
	return syncfs(fd) < 0 ? errno : 0;
}

const struct kernel_calls real_calls = { check, open_compared, freeze, thaw, sync_one };
