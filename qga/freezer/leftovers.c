/* See leftovers.h. */
#define _GNU_SOURCE
#include "leftovers.h"
#include "process.h"
#include "system.h"
#include "thaw-entry.h"
#include "thread.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { FIRST_PAUSE_MS = 100, LONGEST_PAUSE_MS = 5000 };

/* One marker that was set aside. */
struct left {
	char path[PATH_MAX_BYTES + 1], temporary[PATH_MAX_BYTES + 1];
	struct marker marker; /* its states under `lock` */
	struct process old;   /* the dead one while it may be inside FIFREEZE; else none */
	uint64_t since;
	struct left *next;
};

/* One filesystem of it, for its thread. */
struct charge {
	struct left *left;
	size_t index;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct left *all;
static bool news; /* a state changed that is not written down */
static const struct kernel_calls *calls;
static int wake;

static void pause_ms(int ms)
{
	nanosleep(&(struct timespec){ .tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000L }, NULL);
}

static void *see_to(void *argument)
{
	struct charge charge = *(struct charge *)argument;
	/* A copy: the marker itself is read and written under the lock, and a thaw must not hold that. */
	struct marker_entry entry;
	uint64_t one = 1, critical_until;
	struct process old;
	int pause = FIRST_PAUSE_MS;

	free(argument);
	pthread_mutex_lock(&lock);
	entry = charge.left->marker.entries[charge.index];
	old = charge.left->old;
	critical_until = charge.left->marker.critical_until;
	pthread_mutex_unlock(&lock);
	thaw_after_section(critical_until);
	for (;;) {
		int error = thaw_entry(&entry, calls, &old);

		if (error == 0 || error == EINVAL)
			break;
		pause_ms(pause);
		pause = 2 * pause < LONGEST_PAUSE_MS ? 2 * pause : LONGEST_PAUSE_MS;
	}
	pthread_mutex_lock(&lock);
	charge.left->marker.entries[charge.index].state = MARKED_THAWED;
	news = true;
	/* The write can only fail if the counter is full, and then the loop is awake. */
	if (write(wake, &one, sizeof one) < 0)
		news = true;
	pthread_mutex_unlock(&lock);
	return NULL;
}

static int start_thread(struct left *left, size_t index)
{
	struct charge *charge = malloc(sizeof *charge);
	int error;

	if (charge == NULL)
		return ENOMEM;
	*charge = (struct charge){ left, index };
	error = thread_start(see_to, charge);
	if (error != 0)
		free(charge);
	return error;
}

static void forget(struct left *left)
{
	marker_free(&left->marker);
	process_close(&left->old);
	free(left);
}

/* What cannot be read or has no thread stays where it is, for people and for `--thaw-marked`. */
static void take_one(const char *path, void *unused)
{
	struct left *left = calloc(1, sizeof *left);
	char problem[PATH_MAX_BYTES + 256];
	int error = 0;

	(void)unused;
	if (left == NULL)
		return;
	left->old.pidfd = -1;
	left->since = clock_now();
	if (snprintf(left->temporary, sizeof left->temporary, "%s.new", path) >= (int)sizeof left->temporary ||
	    marker_read(path, &left->marker, problem, sizeof problem) != 1) {
		forget(left);
		return;
	}
	strcpy(left->path, path);
	if (process_find(left->marker.pid, &left->old) && left->old.start_time != left->marker.start_time)
		process_close(&left->old);
	pthread_mutex_lock(&lock);
	left->next = all;
	all = left;
	news = true;
	pthread_mutex_unlock(&lock);
	for (size_t i = 0; i < left->marker.count && error == 0; i++)
		if (marker_entry_is_left(&left->marker.entries[i]))
			error = start_thread(left, i);
	if (error != 0)
		fprintf(stderr, "freezer: %s: %s\n", path, strerror(error));
}

int leftovers_take(const char *path, const struct kernel_calls *given, int wake_fd)
{
	int error = marker_set_aside(path);

	if (error != 0)
		return error;
	calls = given;
	wake = wake_fd;
	markers_set_aside(path, take_one, NULL);
	return 0;
}

/* With the lock held: writes the file as it should be now. False, and the file is removed, if nothing in it is left. */
static bool write_down(struct left *left)
{
	for (size_t i = 0; i < left->marker.count; i++)
		if (marker_entry_is_left(&left->marker.entries[i])) {
			marker_write(left->path, left->temporary, &left->marker);
			return true;
		}
	unlink(left->path);
	return false;
}

void leftovers_step(void)
{
	pthread_mutex_lock(&lock);
	for (struct left **at = &all; news && *at != NULL;) {
		struct left *left = *at;

		if (write_down(left)) {
			at = &left->next;
			continue;
		}
		*at = left->next;
		forget(left);
	}
	news = false;
	pthread_mutex_unlock(&lock);
}

static bool is_same(const struct marker_entry *entry, const struct request *request)
{
	if (strcmp(entry->path, request->path) == 0)
		return true;
	if (entry->major == 0 && entry->minor == 0)
		return entry->mount_id == request->mount_id;
	return entry->major == request->major && entry->minor == request->minor;
}

int leftovers_hold(const struct request *request, char *text, size_t size)
{
	bool held = false;

	pthread_mutex_lock(&lock);
	for (struct left *left = all; left != NULL; left = left->next)
		for (size_t i = 0; i < left->marker.count; i++)
			held = held || (marker_entry_is_left(&left->marker.entries[i]) &&
					is_same(&left->marker.entries[i], request));
	pthread_mutex_unlock(&lock);
	if (held)
		snprintf(text, size, "fs: a freezer that died froze it, and it is not thawed yet");
	return held ? EBUSY : 0;
}

void leftovers_each(hung_taker *take, void *context)
{
	/* Only this thread adds and removes; a state that changes meanwhile is told as it was. */
	for (struct left *left = all; left != NULL; left = left->next)
		for (size_t i = 0; i < left->marker.count; i++) {
			bool held;

			pthread_mutex_lock(&lock);
			held = marker_entry_is_left(&left->marker.entries[i]);
			pthread_mutex_unlock(&lock);
			if (held)
				take("thaw", left->since, left->marker.session, left->marker.entries[i].path, context);
		}
}
