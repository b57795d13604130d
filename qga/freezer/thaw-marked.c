/* See thaw-marked.h and "The marker" in README.md. */
#define _GNU_SOURCE
#include "thaw-marked.h"
#include "peer.h"
#include "rcu.h"
#include "system.h"
#include "thaw-entry.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { RETRY_MS = 50, ASK_MS = 1000, GRACE_MS = 1000 };

/* What the child that thaws one filesystem tells; short enough for one atomic write to a pipe. */
struct report {
	size_t index;
	int error; /* 0 thawed; EINVAL it was not frozen; anything else: not known to be thawed */
};

/* False if a freezer that was started meanwhile has put its own marker in this place: that one must stay. */
static bool still_marked(const char *path, const struct marker *marker)
{
	static struct marker now;
	char problem[PATH_MAX_BYTES + 256];
	bool same = marker_read(path, &now, problem, sizeof problem) == 1 && now.pid == marker->pid &&
		    now.start_time == marker->start_time && strcmp(now.session, marker->session) == 0;

	marker_free(&now);
	return same;
}

static int thaw_one(const struct marker_entry *entry, const struct marker *marker, const struct thaw_job *what,
		    const struct process *old)
{
	uint64_t until;

	/* Long enough for a freezer to have taken the marker over, and for a session of its own. */
	if (thaw_after_section(marker->critical_until) && !still_marked(what->marker, marker))
		return ETIMEDOUT;
	until = deadline_after(clock_now(), (uint64_t)what->bound_ms);
	for (;;) {
		int error = thaw_entry(entry, what->calls, old);

		/* One that is mounted nowhere does not come back for being waited for. */
		if (error == 0 || error == EINVAL || error == ENOENT || clock_now() >= until)
			return error;
		nanosleep(&(struct timespec){ .tv_nsec = RETRY_MS * 1000000 }, NULL);
	}
}

/* A process of its own for each: one that the kernel does not let go must not keep this program from ending. */
static bool start_thawing(size_t index, const struct marker *marker, const struct thaw_job *what,
			  const struct process *old, int out)
{
	struct report report = { .index = index };
	pid_t child = fork();
	int null;

	if (child != 0)
		return child > 0;
	setsid();
	null = open("/dev/null", O_RDWR);
	for (int fd = 0; fd < 3; fd++) {
		if (null >= 0)
			dup2(null, fd);
		else
			close(fd);
	}
	report.error = thaw_one(&marker->entries[index], marker, what, old);
	_exit(write(out, &report, sizeof report) == sizeof report ? 0 : 1);
}

/*
 * Ends the freezer that MARKER names. False if it is well and answers: then what it has frozen is its own business. Else
 * OLD is that process if it had to be killed, and may yet be inside a FIFREEZE; it is none if that one was gone.
 */
static bool end_marked_freezer(const struct marker *marker, const char *socket, struct process *old)
{
	pid_t pid;

	if (!process_find(marker->pid, old))
		return true;
	if (old->start_time != marker->start_time || process_ended(old, 0)) {
		process_close(old);
		return true;
	}
	if (peer_ask(socket, ASK_MS, &pid) == PEER_ANSWERS && pid == marker->pid) {
		process_close(old);
		return false;
	}
	process_kill(old);
	process_ended(old, 100);
	return true;
}

/* Fills `errors` with what the children tell; what was there stays where nothing is heard in time. */
static void collect(int in, size_t waiting, int bound_ms, int *errors)
{
	uint64_t until = deadline_after(clock_now(), (uint64_t)bound_ms + GRACE_MS);

	while (waiting > 0) {
		struct pollfd poll_fd = { .fd = in, .events = POLLIN };
		uint64_t now = clock_now();
		struct report report;

		if (now >= until)
			return;
		if (poll(&poll_fd, 1, (int)((until - now) / 1000000) + 1) != 1)
			continue;
		if (read(in, &report, sizeof report) != sizeof report)
			return;
		errors[report.index] = report.error;
		waiting--;
	}
}

/* Says what became of each entry, and notes it there. How many are not known to be thawed. */
static size_t tell_results(struct marker *marker, const int *errors)
{
	char word[4 * PATH_MAX_BYTES + 1];
	size_t left = 0;

	for (size_t i = 0; i < marker->count; i++) {
		struct marker_entry *entry = &marker->entries[i];
		const char *result;

		if (!marker_entry_is_left(entry))
			continue;
		if (errors[i] != 0 && errors[i] != EINVAL)
			left++;
		else
			entry->state = MARKED_THAWED;
		result = errors[i] == 0 ? "thawed" : errors[i] == EINVAL ? "not-frozen" : "failed";
		printf("%s %d %s\n", result, errors[i], word_escape(entry->path, word, sizeof word));
	}
	return left;
}

/* Removes the marker's file, or leaves what is LEFT in it. False if something stays marked that should not. */
static bool settle_marker(const char *path, struct marker *marker, size_t left)
{
	char temporary[PATH_MAX_BYTES + 1];

	if (!still_marked(path, marker)) {
		fprintf(stderr, "freezer: %s is another session's by now, and stays\n", path);
	} else if (left == 0 && unlink(path) < 0) {
		fprintf(stderr, "freezer: cannot remove %s: %s\n", path, strerror(errno));
		return false;
	} else if (left > 0) {
		snprintf(temporary, sizeof temporary, "%s.new", path);
		marker->rcu[0] = '\0';
		marker_write(path, temporary, marker);
	}
	return true;
}

/* 0: all that MARKER names is thawed. 1: not so. */
static int thaw_all(struct marker *marker, const struct thaw_job *what, const struct process *old)
{
	int *errors = calloc(marker->count + 1, sizeof *errors);
	size_t waiting = 0, left;
	int pipes[2];
	bool settled;

	if (errors == NULL || pipe2(pipes, O_CLOEXEC) < 0) {
		perror("freezer: pipe");
		free(errors);
		return 1;
	}
	for (size_t i = 0; i < marker->count; i++) {
		errors[i] = ETIMEDOUT;
		if (!marker_entry_is_left(&marker->entries[i]))
			continue;
		if (start_thawing(i, marker, what, old, pipes[1]))
			waiting++;
		else
			errors[i] = errno;
	}
	close(pipes[1]);
	collect(pipes[0], waiting, what->bound_ms, errors);
	close(pipes[0]);

	left = tell_results(marker, errors);
	/* The marker first: what is printed, still in its buffer, may go to a filesystem that is still frozen. */
	settled = settle_marker(what->marker, marker, left);
	fflush(stdout);
	free(errors);
	return left > 0 || !settled;
}

int thaw_marker(const struct thaw_job *what)
{
	static struct marker marker;
	char problem[PATH_MAX_BYTES + 256];
	int found = marker_read(what->marker, &marker, problem, sizeof problem), result;
	struct process old;

	if (found <= 0) {
		if (found < 0)
			fprintf(stderr, "freezer: %s\n", problem);
		marker_free(&marker);
		return found < 0;
	}
	if (!end_marked_freezer(&marker, what->socket, &old)) {
		fprintf(stderr, "freezer: process %d holds what is marked, and answers: ask it to thaw\n",
			(int)marker.pid);
		marker_free(&marker);
		return 1;
	}
	rcu_put_back(what->rcu_knob, marker.rcu);
	result = thaw_all(&marker, what, &old);
	if (!process_ended(&old, 0))
		fprintf(stderr, "freezer: process %d was killed and has not ended yet\n", (int)marker.pid);
	process_close(&old);
	marker_free(&marker);
	return result;
}

struct asides {
	struct thaw_job what;
	size_t count;
	pid_t *children;
};

/* In a process of its own, so that their bounds do not add up. */
static void thaw_aside(const char *path, void *context)
{
	struct asides *asides = context;
	pid_t *more = realloc(asides->children, (asides->count + 1) * sizeof *more);
	pid_t child = more == NULL ? -1 : fork();

	if (child == 0) {
		asides->what.marker = path;
		_exit(thaw_marker(&asides->what));
	}
	if (child < 0)
		perror("freezer: fork");
	if (more == NULL)
		return;
	asides->children = more;
	if (child > 0)
		asides->children[asides->count++] = child;
}

static void count_left(const char *path, void *context)
{
	(void)path;
	++*(int *)context;
}

int thaw_marked(const struct thaw_job *what)
{
	struct asides asides = { .what = *what };
	int result = thaw_marker(what), left = 0;
	pid_t pid;

	markers_set_aside(what->marker, count_left, &left);
	if (left == 0)
		return result;
	if (peer_ask(what->socket, ASK_MS, &pid) == PEER_ANSWERS) {
		fprintf(stderr, "freezer: process %d sees to what hangs\n", (int)pid);
		return 1;
	}
	fflush(stdout);
	markers_set_aside(what->marker, thaw_aside, &asides);
	for (size_t i = 0; i < asides.count; i++)
		while (waitpid(asides.children[i], NULL, 0) < 0 && errno == EINTR)
			;
	free(asides.children);
	/* The markers of what is not thawed are still there. */
	left = 0;
	markers_set_aside(what->marker, count_left, &left);
	return result | (left > 0);
}
