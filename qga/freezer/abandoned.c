/* See abandoned.h. */
#define _GNU_SOURCE
#include "abandoned.h"
#include "system.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <unistd.h>

/* By `enum inside`. Between two tries of FITHAW a thread is in no call: that is told as a thaw. */
static const char *const calls[] = { "thaw", "open", "sync", "freeze", "thaw" };

static const char *marker_path;
static struct marker marker; /* of one entry */
static struct abandoned *all;
static unsigned numbers;

void abandoned_init(const char *path, pid_t pid, uint64_t start_time)
{
	marker_path = path;
	marker.pid = pid;
	marker.start_time = start_time;
}

static void name_marker(unsigned number, char *out, size_t size)
{
	snprintf(out, size, "%s.left-%d-%llu-%u", marker_path, (int)marker.pid, (unsigned long long)marker.start_time,
		 number);
}

static int write_down(const struct worker_identity *identity, const struct worker_view *view, const char *session,
		      unsigned number)
{
	static char path[PATH_MAX_BYTES + 64], temporary[sizeof path + 8];
	struct marker_entry entry = { view->ours ? MARKED_FROZEN : MARKED_INTENDED, identity->mount_id, identity->major,
				      identity->minor, identity->path };

	strcpy(marker.session, session);
	marker.entries = &entry;
	marker.count = 1;
	name_marker(number, path, sizeof path);
	snprintf(temporary, sizeof temporary, "%s.new", path);
	return marker_write(path, temporary, &marker);
}

/* How many writes the disk has completed; the same number for ever if that is not known. */
static uint64_t progress_of(uint64_t device)
{
	char path[64], line[256];
	unsigned long long writes = 0;

	snprintf(path, sizeof path, "/sys/dev/block/%u:%u/stat", major(device), minor(device));
	if (device == 0 || !read_line(path, line, sizeof line) || sscanf(line, "%*u %*u %*u %*u %llu", &writes) != 1)
		return 0;
	return writes;
}

int abandoned_mark(struct worker *worker, const char *session)
{
	struct worker_view view = worker_look(worker);
	struct abandoned *self = worker_abandoned(worker);
	int error;

	if (self->number != 0 || !view.may_freeze)
		return 0;
	error = write_down(worker_identity(worker), &view, session, numbers + 1);
	if (error == 0)
		self->number = ++numbers;
	return error;
}

void abandoned_unmark(struct worker *worker)
{
	char path[PATH_MAX_BYTES + 64];
	struct abandoned *self = worker_abandoned(worker);

	if (self->number == 0)
		return;
	name_marker(self->number, path, sizeof path);
	unlink(path);
	self->number = 0;
}

void abandon(struct worker *worker, const char *session)
{
	struct abandoned *self = worker_abandoned(worker);

	worker_thaw(worker); /* takes back what has not begun */
	strcpy(self->session, session);
	self->progress = progress_of(worker_identity(worker)->disk);
	self->next = all;
	all = self;
}

static bool is_over(const struct abandoned *self)
{
	struct worker_view view = worker_look(self->worker);

	return self->number != 0 ? view.thaw_done : view.inside == INSIDE_NOTHING;
}

void abandoned_step(void)
{
	for (struct abandoned **at = &all; *at != NULL;) {
		struct abandoned *self = *at;

		if (!is_over(self)) {
			at = &self->next;
			continue;
		}
		*at = self->next;
		abandoned_unmark(self->worker);
		worker_close(self->worker);
	}
}

bool abandoned_armed(void)
{
	for (struct abandoned *self = all; self != NULL; self = self->next)
		if (self->number != 0)
			return true;
	return false;
}

static bool is_same(const struct abandoned *self, const struct request *request, uint64_t superblock)
{
	const struct worker_identity *identity = worker_identity(self->worker);
	bool same_mount = request->mount_id == identity->mount_id && strcmp(request->path, identity->path) == 0;

	/* What does not open is the way to it: by another mount it may be reached, so only this one is refused. */
	if (worker_look(self->worker).inside == INSIDE_OPEN)
		return same_mount;
	if (superblock != 0 && superblock == identity->superblock)
		return true;
	if (request->major != 0 || request->minor != 0)
		return request->major == identity->major && request->minor == identity->minor;
	return same_mount;
}

/* A sync, or an open, whose disk has completed writes since it was last asked. What may freeze is never let in. */
static bool goes_on(struct abandoned *self)
{
	uint64_t progress = progress_of(worker_identity(self->worker)->disk);
	bool moved = self->number == 0 && progress != self->progress;

	self->progress = progress;
	return moved;
}

int abandoned_holds(const struct request *request, const struct mount_kind *mount, char *text, size_t size)
{
	for (struct abandoned *self = all; self != NULL; self = self->next) {
		if (!is_same(self, request, mount->device) || is_over(self) || goes_on(self))
			continue;
		snprintf(text, size, "fs: given up by session %s: its %s has not returned%s", self->session,
			 calls[worker_look(self->worker).inside],
			 self->number == 0 ? "" : ", and it is thawed as soon as the kernel lets it");
		return EBUSY;
	}
	return 0;
}

void abandoned_each(hung_taker *take, void *context)
{
	for (struct abandoned *self = all; self != NULL; self = self->next) {
		struct worker_view view = worker_look(self->worker);

		if (!is_over(self))
			take(calls[view.inside], view.since, self->session, worker_identity(self->worker)->path,
			     context);
	}
}
