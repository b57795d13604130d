/* See worker.h. */
#define _GNU_SOURCE
#include "worker.h"
#include "system.h"
#include "thread.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { RETRY_MS = 100 };
enum want { WANT_SYNC = 1, WANT_FREEZE = 2, WANT_THAW = 4, WANT_END = 8 };

struct worker {
	struct worker_identity identity;
	const struct kernel_calls *calls;
	int fd, wake;
	pthread_cond_t told;
	struct abandoned abandoned;
	char problem[192]; /* once it is open, or not */
	/* Under `lock` from here. */
	unsigned wants;
	bool freeze_begun, thaw_told;
	struct worker_view view;
};

/* One lock for all: it is never held over a call that can wait. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static unsigned alive;

/* Called and returns with the lock held; the call itself is made without it. */
static void call(struct worker *self, enum inside which, int (*what)(int), struct answer *answer)
{
	struct answer result = { .start = clock_now() };

	*answer = result;
	self->view.inside = which;
	self->view.since = result.start;
	pthread_mutex_unlock(&lock);
	result.error = what(self->fd);
	result.end = clock_now();
	pthread_mutex_lock(&lock);
	*answer = result;
	self->view.inside = INSIDE_NOTHING;
}

static void tell_main(struct worker *self)
{
	uint64_t one = 1;

	/* The write can only fail if the counter is full, and then the main thread is awake. */
	if (write(self->wake, &one, sizeof one) < 0)
		return;
}

/*
 * FITHAW until it answers 0, or EINVAL: somebody else has thawed it. Any other
 * error leaves a frozen filesystem behind, so it is tried again for as long as
 * it takes; the session reports what it answered meanwhile.
 */
static void thaw(struct worker *self)
{
	for (;;) {
		call(self, INSIDE_THAW, self->calls->thaw, &self->view.thaw);
		if (self->view.thaw.error == 0 || self->view.thaw.error == EINVAL)
			break;
		pthread_mutex_unlock(&lock);
		tell_main(self);
		nanosleep(&(struct timespec){ .tv_nsec = RETRY_MS * 1000000 }, NULL);
		pthread_mutex_lock(&lock);
	}
}

static void open_it(struct worker *self)
{
	struct worker_identity *identity = &self->identity;
	struct request request = { .path = identity->path,
				   .mount_id = identity->mount_id,
				   .major = identity->major,
				   .minor = identity->minor };
	int error = self->calls->open(&request, &self->fd, &identity->device, self->problem, sizeof self->problem);

	pthread_mutex_lock(&lock);
	self->view.open_error = error;
	self->view.open_done = true;
	self->view.inside = INSIDE_NOTHING;
	pthread_mutex_unlock(&lock);
	tell_main(self);
}

static void *work(void *argument)
{
	struct worker *self = argument;

	open_it(self);
	pthread_mutex_lock(&lock);
	for (;;) {
		if (self->wants == 0) {
			pthread_cond_wait(&self->told, &lock);
			continue;
		}
		if (self->wants & WANT_FREEZE) {
			self->wants &= ~(unsigned)WANT_FREEZE;
			self->freeze_begun = true;
			call(self, INSIDE_FREEZE, self->calls->freeze, &self->view.freeze);
			self->view.freeze_done = true;
			self->view.ours = self->view.may_freeze = self->view.freeze.error == 0;
		} else if (self->wants & WANT_THAW) {
			self->wants &= ~(unsigned)WANT_THAW;
			if (self->view.ours)
				thaw(self);
			self->view.thaw_done = true;
			self->view.may_freeze = false;
		} else if (self->wants & WANT_SYNC) {
			self->wants &= ~(unsigned)WANT_SYNC;
			call(self, INSIDE_SYNC, self->calls->sync, &self->view.sync);
			if (self->view.sync_error == 0)
				self->view.sync_error = self->view.sync.error;
			self->view.sync_done = !(self->wants & WANT_SYNC);
		} else {
			break;
		}
		pthread_mutex_unlock(&lock);
		tell_main(self);
		pthread_mutex_lock(&lock);
	}
	alive--;
	pthread_mutex_unlock(&lock);

	if (self->fd >= 0)
		close(self->fd);
	pthread_cond_destroy(&self->told);
	free(self->identity.path);
	free(self);
	return NULL;
}

static int start_thread(struct worker *self)
{
	int error;

	pthread_mutex_lock(&lock);
	alive++;
	pthread_mutex_unlock(&lock);
	error = thread_start(work, self);
	if (error == 0)
		return 0;
	pthread_mutex_lock(&lock);
	alive--;
	pthread_mutex_unlock(&lock);
	return error;
}

struct worker *worker_open(const struct request *request, const struct mount_kind *mount,
			   const struct kernel_calls *calls, int wake, int *error)
{
	struct worker *self = calloc(1, sizeof *self);

	*error = ENOMEM;
	if (self == NULL)
		return NULL;
	self->identity = (struct worker_identity){ .group = request->group,
						   .mount_id = request->mount_id,
						   .major = request->major,
						   .minor = request->minor,
						   .superblock = mount->device,
						   .disk = mount->disk,
						   .path = strdup(request->path) };
	self->calls = calls;
	self->fd = -1;
	self->wake = wake;
	self->view.inside = INSIDE_OPEN;
	self->view.since = clock_now();
	self->abandoned.worker = self;
	pthread_cond_init(&self->told, NULL);
	if (self->identity.path != NULL)
		*error = start_thread(self);
	if (*error == 0)
		return self;
	pthread_cond_destroy(&self->told);
	free(self->identity.path);
	free(self);
	return NULL;
}

const struct worker_identity *worker_identity(const struct worker *worker)
{
	return &worker->identity;
}

const char *worker_problem(const struct worker *worker)
{
	return worker->problem;
}

struct abandoned *worker_abandoned(struct worker *worker)
{
	return &worker->abandoned;
}

static void want(struct worker *worker, enum want what)
{
	worker->wants |= what;
	pthread_cond_signal(&worker->told);
}

void worker_sync(struct worker *worker)
{
	pthread_mutex_lock(&lock);
	worker->view.sync_done = false;
	worker->view.sync = (struct answer){ 0 };
	want(worker, WANT_SYNC);
	pthread_mutex_unlock(&lock);
}

void worker_freeze(struct worker *worker)
{
	pthread_mutex_lock(&lock);
	worker->wants &= ~(unsigned)WANT_SYNC;
	worker->view.may_freeze = true;
	want(worker, WANT_FREEZE);
	pthread_mutex_unlock(&lock);
}

void worker_refuse(struct worker *worker, int error)
{
	pthread_mutex_lock(&lock);
	worker->freeze_begun = true;
	worker->view.freeze_done = true;
	worker->view.freeze = (struct answer){ .error = error };
	pthread_mutex_unlock(&lock);
}

void worker_thaw(struct worker *worker)
{
	pthread_mutex_lock(&lock);
	if (!worker->thaw_told) {
		worker->thaw_told = true;
		worker->wants &= ~(unsigned)(WANT_FREEZE | WANT_SYNC);
		if (worker->freeze_begun)
			want(worker, WANT_THAW);
		else
			worker->view.thaw_done = true;
		worker->view.may_freeze = worker->view.may_freeze && worker->freeze_begun;
	}
	pthread_mutex_unlock(&lock);
}

struct worker_view worker_look(struct worker *worker)
{
	struct worker_view view;

	pthread_mutex_lock(&lock);
	view = worker->view;
	pthread_mutex_unlock(&lock);
	return view;
}

void worker_close(struct worker *worker)
{
	pthread_mutex_lock(&lock);
	worker->wants = WANT_END;
	pthread_cond_signal(&worker->told);
	pthread_mutex_unlock(&lock);
}

unsigned workers_alive(void)
{
	unsigned count;

	pthread_mutex_lock(&lock);
	count = alive;
	pthread_mutex_unlock(&lock);
	return count;
}
