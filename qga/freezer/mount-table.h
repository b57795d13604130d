/* The mount table, /proc/self/mountinfo: gone through line by line, or asked for one mount by its id. */
#ifndef FREEZER_MOUNT_TABLE_H
#define FREEZER_MOUNT_TABLE_H

#include <stdbool.h>
#include <stdint.h>

struct mount {
	uint64_t id;
	uint32_t major, minor;
	char *point; /* unescaped */
	char *type;
	char *source; /* as it stands there */
};

/* Calls TAKE for each line of /proc/self/mountinfo until it returns true. -1 with errno, 0 not taken, 1 taken. */
int mounts_each(bool (*take)(const struct mount *, void *), void *context);

/* The block device under a mount, or one of them; 0: not known. Follows no name that any user may have chosen. */
uint64_t mount_disk(const struct mount *mount);

/* What is known of a mount by its id. */
struct mount_kind {
	uint64_t id;
	uint64_t device;   /* of the superblock: for btrfs none that fstat() knows */
	uint64_t disk;     /* mount_disk() */
	bool never_opened; /* opening it, or a statfs, may wait for another machine or process */
};

/*
 * 1 found, 0 there is none, -1 with errno. The table is read once for many questions: with tens of thousands of mounts
 * each reading takes the kernel tens of milliseconds. It is read anew for an id that is not in it.
 */
int mount_find(uint64_t id, struct mount_kind *out);
/* Drops what was read: before a new plan, and when a plan is done with, since the kernel uses ids again. */
void mounts_forget(void);

#endif
