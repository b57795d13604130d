/* See leftovers.h. */
#define _GNU_SOURCE
#include "leftovers.h"
#include "system.h"
#include "thaw-marked.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

#ifndef WORKER_STACK
#define WORKER_STACK (32 * 1024)
#endif

enum { FIRST_PAUSE_MS = 100, LONGEST_PAUSE_MS = 5000 };

/* One marker that was set aside. */
struct left {
	char path[PATH_MAX_BYTES + 1], temporary[PATH_MAX_BYTES + 1];
	struct marker marker; /* its states under `lock` */
	int old;              /* pidfd of the dead one while it may be inside FIFREEZE; -1 */
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
	/* A copy: the states of the others change, this one only here. */
	struct marker_entry entry;
	uint64_t one = 1;
	int old, pause = FIRST_PAUSE_MS;

	free(argument);
	pthread_mutex_lock(&lock);
	entry = charge.left->marker.entries[charge.index];
	old = charge.left->old;
	pthread_mutex_unlock(&lock);
	for (;;) {
		int error = thaw_entry(&entry, calls, old);

		if (error == 0 || error == EINVAL)
			break;
		pause_ms(pause);
		pause = 2 * pause < LONGEST_PAUSE_MS ? 2 * pause : LONGEST_PAUSE_MS;
	}
	pthread_mutex_lock(&lock);
	charge.left->marker.entries[charge.index].state = MARKED_THAWED;
	news = true;
	/* Can only fail if the counter is full, and then the loop is awake. */
	if (write(wake, &one, sizeof one) < 0)
		news = true;
	pthread_mutex_unlock(&lock);
	return NULL;
}

static bool is_left(const struct marker_entry *entry)
{
	return entry->state == MARKED_INTENDED || entry->state == MARKED_FROZEN;
}

static int start_thread(struct left *left, size_t index)
{
	struct charge *charge = malloc(sizeof *charge);
	pthread_attr_t attributes;
	pthread_t thread;
	sigset_t every, before;
	int error;

	if (charge == NULL)
		return ENOMEM;
	*charge = (struct charge){ left, index };
	sigfillset(&every);
	pthread_attr_init(&attributes);
	pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
	pthread_attr_setstacksize(&attributes, WORKER_STACK);
	pthread_sigmask(SIG_SETMASK, &every, &before);
	error = pthread_create(&thread, &attributes, see_to, charge);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	pthread_attr_destroy(&attributes);
	if (error != 0)
		free(charge);
	return error;
}

static void forget(struct left *left)
{
	marker_free(&left->marker);
	if (left->old >= 0)
		close(left->old);
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
	left->old = -1;
	if (snprintf(left->temporary, sizeof left->temporary, "%s.new", path) >= (int)sizeof left->temporary ||
	    marker_read(path, &left->marker, problem, sizeof problem) != 1) {
		forget(left);
		return;
	}
	strcpy(left->path, path);
	if (process_start_time(left->marker.pid) == left->marker.start_time)
		left->old = pidfd_of(left->marker.pid);
	pthread_mutex_lock(&lock);
	left->next = all;
	all = left;
	news = true;
	pthread_mutex_unlock(&lock);
	for (size_t i = 0; i < left->marker.count && error == 0; i++)
		if (is_left(&left->marker.entries[i]))
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

/* With the lock held: the file as it should be now. False if nothing in it is left. */
static bool write_down(struct left *left)
{
	for (size_t i = 0; i < left->marker.count; i++)
		if (is_left(&left->marker.entries[i]))
			return marker_write(left->path, left->temporary, &left->marker), true;
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

static bool is_same(const struct marker_entry *entry, const struct worker_identity *filesystem)
{
	if (strcmp(entry->path, filesystem->path) == 0)
		return true;
	if (entry->major == 0 && entry->minor == 0)
		return entry->mount_id == filesystem->mount_id;
	return makedev(entry->major, entry->minor) == filesystem->device;
}

bool leftovers_hold(const struct worker_identity *filesystem)
{
	bool held = false;

	pthread_mutex_lock(&lock);
	for (struct left *left = all; left != NULL; left = left->next)
		for (size_t i = 0; i < left->marker.count; i++)
			held = held || (is_left(&left->marker.entries[i]) && is_same(&left->marker.entries[i], filesystem));
	pthread_mutex_unlock(&lock);
	return held;
}
