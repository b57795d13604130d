/* What is asked of a mount's source: a name that any user may have chosen is never followed. */
#define _GNU_SOURCE
#include "check.h"
#include "mount-table.h"

#include <stdbool.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

static bool watched;
static int followed;

int __real_stat(const char *path, struct stat *status);
int __wrap_stat(const char *path, struct stat *status);

/* While it is watched every name leads to the block device 253:7. */
int __wrap_stat(const char *path, struct stat *status)
{
	if (!watched)
		return __real_stat(path, status);
	followed++;
	memset(status, 0, sizeof *status);
	status->st_mode = S_IFBLK | 0600;
	status->st_rdev = makedev(253, 7);
	return 0;
}

void test_mount_disks(void)
{
	static const struct {
		const char *type, *source;
		uint32_t major;
		bool follows;
	} mounts[] = {
		{ "btrfs", "/dev/vda2", 0, true },
		{ "bcachefs", "/dev/mapper/pool", 0, true },
		{ "fuse.sshfs", "/dev/../net/deadhost/x", 0, false },
		{ "fuse", "/dev/vda2", 0, false },
		{ "fuse.btrfs", "/dev/vda2", 0, false },
		{ "btrfs", "/dev/../net/deadhost/x", 0, false },
		{ "btrfs", "/dev/shm/link", 0, false },
		{ "btrfs", "/home/user/link", 0, false },
		{ "tmpfs", "/dev/vda2", 0, false },
		{ "ext4", "/dev/vda2", 8, false },
	};

	for (size_t i = 0; i < sizeof mounts / sizeof *mounts; i++) {
		struct mount mount = { .major = mounts[i].major,
				       .minor = 2,
				       .type = (char *)mounts[i].type,
				       .source = (char *)mounts[i].source };
		uint64_t own = mount.major == 0 ? 0 : makedev(mount.major, mount.minor);

		followed = 0;
		watched = true;
		CHECK(mount_disk(&mount) == (mounts[i].follows ? makedev(253, 7) : own));
		watched = false;
		CHECK(followed == mounts[i].follows);
	}
	passed("a source that any user may name is not followed");
}
