/* See mount-table.h. */
#define _GNU_SOURCE
#include "mount-table.h"
#include "request.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

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
			out->source = strtok_r(NULL, " \n", &save);
			return out->source != NULL;
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

static bool never_opened(const char *type)
{
	static const char *const types[] = {
		"autofs", "nfs",   "nfs4",   "cifs",      "smb3",   "smbfs",    "ceph",     "9p",   "afs",
		"coda",   "ncpfs", "lustre", "glusterfs", "beegfs", "orangefs", "virtiofs", "fuse", "fuseblk",
	};

	for (size_t i = 0; i < sizeof types / sizeof *types; i++)
		if (strcmp(type, types[i]) == 0)
			return true;
	return strncmp(type, "fuse.", 5) == 0;
}

static struct mount_kind *known;
static size_t known_count, known_room;

void mounts_forget(void)
{
	free(known);
	known = NULL;
	known_count = known_room = 0;
}

/*
 * True of a superblock whose device number is anonymous (major 0), and whose source is the name of its disk, and may be
 * followed.
 * On any other type a user may name the source (FUSE's fsname=), and to follow it may wait for another machine. In /dev
 * nothing waits for a disk; to /dev/shm everybody writes.
 */
static bool names_its_disk(const struct mount *mount)
{
	return (strcmp(mount->type, "btrfs") == 0 || strcmp(mount->type, "bcachefs") == 0) &&
	       strncmp(mount->source, "/dev/", 5) == 0 && strncmp(mount->source, "/dev/shm/", 9) != 0 &&
	       strstr(mount->source, "/../") == NULL;
}

uint64_t mount_disk(const struct mount *mount)
{
	struct stat status;

	if (mount->major != 0)
		return makedev(mount->major, mount->minor);
	if (!names_its_disk(mount) || stat(mount->source, &status) < 0 || !S_ISBLK(status.st_mode))
		return 0;
	return status.st_rdev;
}

static bool remember(const struct mount *mount, void *failed)
{
	if (known_count == known_room) {
		size_t room = known_room == 0 ? 64 : 2 * known_room;
		struct mount_kind *more = realloc(known, room * sizeof *known);

		if (more == NULL)
			return *(bool *)failed = true;
		known = more;
		known_room = room;
	}
	known[known_count++] = (struct mount_kind){ mount->id, makedev(mount->major, mount->minor), mount_disk(mount),
						    never_opened(mount->type) };
	return false;
}

static int by_id(const void *a, const void *b)
{
	const struct mount_kind *one = a, *other = b;

	return one->id < other->id ? -1 : one->id > other->id;
}

static bool look_up(uint64_t id, struct mount_kind *out)
{
	struct mount_kind key = { .id = id }, *found;

	found = known_count == 0 ? NULL : bsearch(&key, known, known_count, sizeof *known, by_id);
	if (found != NULL)
		*out = *found;
	return found != NULL;
}

int mount_find(uint64_t id, struct mount_kind *out)
{
	bool failed = false;

	if (look_up(id, out))
		return 1;
	mounts_forget();
	if (mounts_each(remember, &failed) < 0 || failed) {
		mounts_forget();
		return -1;
	}
	qsort(known, known_count, sizeof *known, by_id);
	return look_up(id, out);
}
