/* See worker.h. */
#define _GNU_SOURCE
#include "worker.h"
#include "system.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

/* A locked stack is resident: keep it small. Sanitizers need more. */
#ifndef WORKER_STACK
#define WORKER_STACK (32 * 1024)
#endif

enum { RETRY_MS = 100 };
enum want { WANT_SYNC = 1, WANT_FREEZE = 2, WANT_THAW = 4, WANT_END = 8 };

struct worker {
	struct worker_identity identity;
	const struct kernel_calls *calls;
	int fd, wake;
	pthread_cond_t told;
	/* Under `lock` from here. */
	unsigned wants;
	bool running, freeze_begun, thaw_told;
	struct worker_view view;
};

/* One lock for all: it is never held over a call that can wait. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t started = PTHREAD_COND_INITIALIZER;
static unsigned alive;

static int real_freeze(int fd)
{
	return ioctl(fd, FIFREEZE, 0) < 0 ? errno : 0;
}

static int real_thaw(int fd)
{
	return ioctl(fd, FITHAW, 0) < 0 ? errno : 0;
}

static int real_sync(int fd)
{
	return syncfs(fd) < 0 ? errno : 0;
}

/* Called and returns with the lock held; the call itself is made without it. */
static void call(struct worker *self, int (*what)(int), struct answer *answer)
{
	struct answer result = { .start = clock_now() };

	*answer = result;
	self->view.busy = true;
	pthread_mutex_unlock(&lock);
	result.error = what(self->fd);
	result.end = clock_now();
	pthread_mutex_lock(&lock);
	*answer = result;
	self->view.busy = false;
}

static void tell_main(struct worker *self)
{
	uint64_t one = 1;

	/* Can only fail if the counter is full, and then the main thread is awake. */
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
		call(self, self->calls->thaw, &self->view.thaw);
		if (self->view.thaw.error == 0 || self->view.thaw.error == EINVAL)
			break;
		pthread_mutex_unlock(&lock);
		tell_main(self);
		nanosleep(&(struct timespec){ .tv_nsec = RETRY_MS * 1000000 }, NULL);
		pthread_mutex_lock(&lock);
	}
}

static void *work(void *argument)
{
	struct worker *self = argument;

	pthread_mutex_lock(&lock);
	self->running = true;
	pthread_cond_signal(&started);
	for (;;) {
		if (self->wants == 0) {
			pthread_cond_wait(&self->told, &lock);
			continue;
		}
		if (self->wants & WANT_FREEZE) {
			self->wants &= ~(unsigned)WANT_FREEZE;
			self->freeze_begun = true;
			call(self, self->calls->freeze, &self->view.freeze);
			self->view.freeze_done = true;
			self->view.ours = self->view.freeze.error == 0;
		} else if (self->wants & WANT_THAW) {
			self->wants &= ~(unsigned)WANT_THAW;
			if (self->view.ours)
				thaw(self);
			self->view.thaw_done = true;
		} else if (self->wants & WANT_SYNC) {
			self->wants &= ~(unsigned)WANT_SYNC;
			call(self, self->calls->sync, &self->view.sync);
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

	close(self->fd);
	pthread_cond_destroy(&self->told);
	free(self->identity.path);
	free(self);
	return NULL;
}

/* Filesystems that are never opened: opening, or a statfs, may wait for another machine or process. */
static bool never_opened(const char *type)
{
	static const char *const types[] = {
		"autofs", "nfs", "nfs4", "cifs", "smb3", "smbfs", "ceph", "9p", "afs", "coda", "ncpfs", "lustre",
		"glusterfs", "beegfs", "orangefs", "virtiofs", "fuse", "fuseblk",
	};

	for (size_t i = 0; i < sizeof types / sizeof *types; i++)
		if (strcmp(type, types[i]) == 0)
			return true;
	return strncmp(type, "fuse.", 5) == 0;
}

struct sought {
	uint64_t mount_id;
	bool never;
};

static bool is_sought(const struct mount *mount, void *context)
{
	struct sought *sought = context;

	if (mount->id != sought->mount_id)
		return false;
	sought->never = never_opened(mount->type);
	return true;
}

/* 0 or an errno, with the reason in `text`; the open file in `fd`. */
static int open_checked(const struct request *request, int *fd, uint64_t *device, char *text, size_t size)
{
	struct sought sought = { .mount_id = request->mount_id };
	struct stat status;
	int known = mounts_each(is_sought, &sought);

	if (known < 0) {
		snprintf(text, size, "fs: /proc/self/mountinfo cannot be read: %s", strerror(errno));
		return EIO;
	}
	if (!known) {
		snprintf(text, size, "fs: expected mount %llu, found no such mount",
			 (unsigned long long)request->mount_id);
		return ESTALE;
	}
	if (sought.never) {
		snprintf(text, size, "fs: network, FUSE and autofs mounts are never opened");
		return EOPNOTSUPP;
	}
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

const struct kernel_calls real_calls = { open_checked, real_freeze, real_thaw, real_sync };

static int start_thread(struct worker *self)
{
	pthread_attr_t attributes;
	pthread_t thread;
	sigset_t all, before;
	int error;

	sigfillset(&all);
	pthread_attr_init(&attributes);
	pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
	pthread_attr_setstacksize(&attributes, WORKER_STACK);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	error = pthread_create(&thread, &attributes, work, self);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	pthread_attr_destroy(&attributes);
	if (error != 0)
		return error;
	pthread_mutex_lock(&lock);
	alive++;
	while (!self->running)
		pthread_cond_wait(&started, &lock);
	pthread_mutex_unlock(&lock);
	return 0;
}

struct worker *worker_open(const struct request *request, const struct kernel_calls *calls, int wake,
			   int *error, char *text, size_t size)
{
	int fd = -1;
	uint64_t device = 0;
	struct worker *self;

	*error = calls->open(request, &fd, &device, text, size);
	if (*error != 0) {
		if (fd >= 0)
			close(fd);
		return NULL;
	}
	self = calloc(1, sizeof *self);
	if (self != NULL)
		self->identity.path = strdup(request->path);
	if (self != NULL && self->identity.path != NULL) {
		self->identity.group = request->group;
		self->identity.mount_id = request->mount_id;
		self->identity.major = request->major;
		self->identity.minor = request->minor;
		self->identity.device = device;
		self->calls = calls;
		self->fd = fd;
		self->wake = wake;
		pthread_cond_init(&self->told, NULL);
		*error = start_thread(self);
		if (*error == 0)
			return self;
		pthread_cond_destroy(&self->told);
	} else {
		*error = ENOMEM;
	}
	snprintf(text, size, "fs: cannot start its thread: %s", strerror(*error));
	close(fd);
	if (self != NULL)
		free(self->identity.path);
	free(self);
	return NULL;
}

const struct worker_identity *worker_identity(const struct worker *worker)
{
	return &worker->identity;
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
