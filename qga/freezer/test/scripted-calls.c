/* See scripted-calls.h. */
#define _GNU_SOURCE
#include "scripted-calls.h"
#include "check.h"
#include "system.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { SCRIPTED_MAX = 1200 };

struct script {
	ino_t inode;
	char path[64];
	bool held[SCRIPT_VERBS];
	int error[SCRIPT_VERBS], times[SCRIPT_VERBS], calls[SCRIPT_VERBS];
	bool frozen, freezing;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static struct script scripts[SCRIPTED_MAX];
static int count, thaws_during_freeze;
static char watched[256], seen;
static int let_go_while_marked = -1;
static pid_t script_owner;

static struct script *of(int fd)
{
	struct stat status;

	CHECK(fstat(fd, &status) == 0);
	for (int i = 0; i < count; i++)
		if (scripts[i].inode == status.st_ino)
			return &scripts[i];
	CHECK(!"a filesystem of the script");
	return NULL;
}

/* With the lock held: waits while held, then the error the script wants. */
static int begin(struct script *self, enum scripted verb)
{
	self->calls[verb]++;
	pthread_cond_broadcast(&changed);
	if (self->held[verb] && getpid() != script_owner) {
		sleep(2); /* a child of thaw_marked(), which nobody can let go */
		_exit(1);
	}
	while (self->held[verb])
		pthread_cond_wait(&changed, &lock);
	return self->times[verb] > 0 ? (self->times[verb]--, self->error[verb]) : 0;
}

static int scripted_open(const struct request *request, int *fd, uint64_t *device, char *text, size_t size)
{
	struct stat status;

	*fd = open_mount_point(request->path);
	if (*fd < 0) {
		snprintf(text, size, "fs: no such script");
		return ENOENT;
	}
	CHECK(fstat(*fd, &status) == 0);
	*device = status.st_ino; /* all lie on one real device */
	pthread_mutex_lock(&lock);
	begin(of(*fd), SCRIPT_OPEN);
	pthread_mutex_unlock(&lock);
	return 0;
}

static int scripted_freeze(int fd)
{
	struct script *self;
	char line[8] = "";
	int error;

	pthread_mutex_lock(&lock);
	self = of(fd);
	if (watched[0] != '\0' && read_line(watched, line, sizeof line))
		seen = line[0];
	if (self->frozen) {
		pthread_mutex_unlock(&lock);
		return EBUSY;
	}
	self->freezing = true;
	error = begin(self, SCRIPT_FREEZE);
	self->freezing = false;
	self->frozen = error == 0;
	pthread_cond_broadcast(&changed);
	pthread_mutex_unlock(&lock);
	return error;
}

static int scripted_thaw(int fd)
{
	struct script *self;
	int error;

	pthread_mutex_lock(&lock);
	self = of(fd);
	if (self->freezing) {
		thaws_during_freeze++;
		while (self->freezing)
			pthread_cond_wait(&changed, &lock);
		pthread_mutex_unlock(&lock);
		return EINVAL;
	}
	error = begin(self, SCRIPT_THAW);
	if (error == 0 && !self->frozen)
		error = EINVAL;
	if (error == 0)
		self->frozen = false;
	pthread_mutex_unlock(&lock);
	return error;
}

static int scripted_sync(int fd)
{
	int error;

	pthread_mutex_lock(&lock);
	error = begin(of(fd), SCRIPT_SYNC);
	pthread_mutex_unlock(&lock);
	return error;
}

static int scripted_check(const struct request *request, struct mount_kind *mount, char *text, size_t size)
{
	(void)request, (void)mount, (void)text, (void)size;
	return 0;
}

const struct kernel_calls scripted_calls = { scripted_check, scripted_open, scripted_freeze, scripted_thaw,
					     scripted_sync };

void script_reset(int wanted)
{
	struct stat status;

	CHECK(wanted <= SCRIPTED_MAX);
	pthread_mutex_lock(&lock);
	memset(scripts, 0, sizeof scripts);
	count = wanted;
	script_owner = getpid();
	thaws_during_freeze = 0;
	watched[0] = seen = '\0';
	let_go_while_marked = -1;
	for (int i = 0; i < count; i++) {
		snprintf(scripts[i].path, sizeof scripts[i].path, "%s/fs%d", scratch, i);
		CHECK(mkdir(scripts[i].path, 0700) == 0 || errno == EEXIST);
		CHECK(stat(scripts[i].path, &status) == 0);
		scripts[i].inode = status.st_ino;
	}
	pthread_mutex_unlock(&lock);
}

const char *script_path(int fs)
{
	return scripts[fs].path;
}

static void set_held(int fs, enum scripted verb, bool held)
{
	pthread_mutex_lock(&lock);
	scripts[fs].held[verb] = held;
	pthread_cond_broadcast(&changed);
	pthread_mutex_unlock(&lock);
}

void script_hold(int fs, enum scripted verb)
{
	set_held(fs, verb, true);
}

void script_let_go(int fs, enum scripted verb)
{
	set_held(fs, verb, false);
}

void script_let_go_while_marked(int fs)
{
	pthread_mutex_lock(&lock);
	let_go_while_marked = fs;
	pthread_mutex_unlock(&lock);
}

/* In place of marker.c's, for whoever calls it from another file (Makefile, WRAP). */
int __real_marker_write(const char *path, const char *temporary, const struct marker *marker);
int __wrap_marker_write(const char *path, const char *temporary, const struct marker *marker);

int __wrap_marker_write(const char *path, const char *temporary, const struct marker *marker)
{
	int error = __real_marker_write(path, temporary, marker), fs;

	pthread_mutex_lock(&lock);
	fs = strstr(path, ".left-") == NULL ? -1 : let_go_while_marked;
	if (fs >= 0)
		let_go_while_marked = -1;
	pthread_mutex_unlock(&lock);
	if (fs >= 0) {
		script_let_go(fs, SCRIPT_THAW);
		while (script_frozen(fs))
			usleep(1000);
		usleep(50000); /* for its thread to note the answer */
	}
	return error;
}

void script_fail(int fs, enum scripted verb, int error, int times)
{
	pthread_mutex_lock(&lock);
	scripts[fs].error[verb] = error;
	scripts[fs].times[verb] = times;
	pthread_mutex_unlock(&lock);
}

void script_thaw_by_stranger(int fs)
{
	pthread_mutex_lock(&lock);
	scripts[fs].frozen = false;
	pthread_mutex_unlock(&lock);
}

bool script_frozen(int fs)
{
	bool frozen;

	pthread_mutex_lock(&lock);
	frozen = scripts[fs].frozen;
	pthread_mutex_unlock(&lock);
	return frozen;
}

int script_calls(int fs, enum scripted verb)
{
	int calls;

	pthread_mutex_lock(&lock);
	calls = scripts[fs].calls[verb];
	pthread_mutex_unlock(&lock);
	return calls;
}

int script_thaws_during_freeze(void)
{
	int times;

	pthread_mutex_lock(&lock);
	times = thaws_during_freeze;
	pthread_mutex_unlock(&lock);
	return times;
}

void script_watch(const char *path)
{
	pthread_mutex_lock(&lock);
	snprintf(watched, sizeof watched, "%s", path);
	seen = '\0';
	pthread_mutex_unlock(&lock);
}

char script_seen(void)
{
	char byte;

	pthread_mutex_lock(&lock);
	byte = seen;
	pthread_mutex_unlock(&lock);
	return byte;
}
