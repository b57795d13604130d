/* See thaw-entry.h. */
#define _GNU_SOURCE
#include "thaw-entry.h"
#include "mount-table.h"
#include "system.h"

#include <errno.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

static bool matches(int fd, const struct marker_entry *entry)
{
	struct stat status;

	if (entry->major == 0 && entry->minor == 0)
		return mount_id_of(fd) == entry->mount_id;
	return fstat(fd, &status) == 0 && major(status.st_dev) == entry->major && minor(status.st_dev) == entry->minor;
}

struct elsewhere {
	const struct marker_entry *entry;
	int fd;
};

static bool open_elsewhere(const struct mount *mount, void *context)
{
	struct elsewhere *sought = context;
	const struct marker_entry *entry = sought->entry;
	bool by_id = entry->major == 0 && entry->minor == 0;

	if (by_id ? mount->id != entry->mount_id : mount->major != entry->major || mount->minor != entry->minor)
		return false;
	sought->fd = open_mount_point(mount->point);
	if (sought->fd >= 0 && !matches(sought->fd, entry)) {
		close(sought->fd);
		sought->fd = -1;
	}
	return sought->fd >= 0;
}

/* At its path; else wherever it is mounted now (moved, or something lies over it). -1 with errno. */
static int open_marked(const struct marker_entry *entry)
{
	struct elsewhere sought = { entry, -1 };
	int fd = open_mount_point(entry->path);

	if (fd >= 0 && matches(fd, entry))
		return fd;
	if (fd >= 0)
		close(fd);
	if (mounts_each(open_elsewhere, &sought) == 1)
		return sought.fd;
	errno = ENOENT;
	return -1;
}

bool thaw_after_section(uint64_t critical_until)
{
	uint64_t begun = clock_now(), longest = deadline_after(begun, CRITICAL_LONGEST_MS);
	uint64_t until = critical_until < longest ? critical_until : longest;

	for (uint64_t now = begun; now < until; now = clock_now())
		nanosleep(&(struct timespec){ .tv_sec = (time_t)((until - now) / 1000000000),
					      .tv_nsec = (long)((until - now) % 1000000000) },
			  NULL);
	return begun < until;
}

int thaw_entry(const struct marker_entry *entry, const struct kernel_calls *calls, const struct process *old)
{
	/*
	 * Asked before FITHAW. The other way round: FITHAW answers EINVAL, since OLD is still inside its FIFREEZE; that
	 * returns, the filesystem is frozen, and OLD ends; asked now, it has ended, and EINVAL would be taken for the end
	 * of the matter. Asked first, EINVAL says that nothing will be frozen after it.
	 */
	bool ended = process_ended(old, 0);
	int fd = open_marked(entry), error;

	if (fd < 0)
		return errno == EINVAL ? EIO : errno;
	error = calls->thaw(fd);
	close(fd);
	return error == EINVAL && !ended && entry->state == MARKED_INTENDED ? ETIMEDOUT : error;
}
