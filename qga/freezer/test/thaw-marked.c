/*
 * --thaw-marked with scripted filesystems. It thaws in child processes, whose
 * memory this one does not see: what happened is read from the marker.
 */
#define _GNU_SOURCE
#include "thaw-marked.h"
#include "check.h"
#include "process.h"
#include "scripted-calls.h"
#include "switch-off.h"
#include "system.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static char marker_path[256], temporary[256], socket_path[256], knob[256];
static struct thaw_job what;

static struct marker base(void)
{
	static struct marker_entry entries[3];
	struct marker marker = { .pid = 4194303, .start_time = 1, .session = "s", .entries = entries };
	int fd = open_mount_point(scratch);
	uint64_t id = mount_id_of(fd);

	CHECK(fd >= 0 && id != 0);
	close(fd);
	for (int i = 0; i < 3; i++)
		marker.entries[marker.count++] =
			(struct marker_entry){ MARKED_FROZEN, id, 0, 0, (char *)(uintptr_t)script_path(i) };
	return marker;
}

static void state_after(enum marked *states)
{
	static struct marker in;
	char problem[512];

	CHECK(marker_read(marker_path, &in, problem, sizeof problem) == 1);
	for (size_t i = 0; i < in.count; i++)
		states[i] = in.entries[i].state;
	marker_free(&in);
}

static void clean_run(void)
{
	struct marker marker = base();
	char line[16];
	FILE *file = fopen(knob, "w");

	CHECK(file != NULL && fputs("1\n", file) > 0 && fclose(file) == 0);
	script_reset(3);
	strcpy(marker.rcu, "0");
	marker.entries[2].state = MARKED_REFUSED;
	CHECK(marker_write(marker_path, temporary, &marker) == 0);
	CHECK(thaw_marked(&what) == 0);
	CHECK(access(marker_path, F_OK) < 0);
	CHECK(read_line(knob, line, sizeof line) && strcmp(line, "0") == 0);
	CHECK(thaw_marked(&what) == 0); /* nothing marked any more */
}

static void one_cannot_be_thawed(void)
{
	struct marker marker = base();
	enum marked states[3];

	script_reset(3);
	script_fail(0, SCRIPT_THAW, EIO, 1000);
	script_hold(1, SCRIPT_THAW); /* the kernel does not return */
	CHECK(marker_write(marker_path, temporary, &marker) == 0);
	CHECK(thaw_marked(&what) == 1);
	state_after(states);
	CHECK(states[0] == MARKED_FROZEN && states[1] == MARKED_FROZEN && states[2] == MARKED_THAWED);
	unlink(marker_path);
}

static void gone_mount(void)
{
	struct marker marker = base();
	enum marked states[3];

	script_reset(3);
	marker.entries[1].mount_id = 999999999;
	CHECK(marker_write(marker_path, temporary, &marker) == 0);
	CHECK(thaw_marked(&what) == 1);
	state_after(states);
	CHECK(states[0] == MARKED_THAWED && states[1] == MARKED_FROZEN);
	unlink(marker_path);
}

/* While a dead disk is waited for, a new freezer writes the marker of its own session: that one stays as it is. */
static void newer_session(void)
{
	struct marker marker = base();
	static struct marker in;
	char problem[512];
	pid_t successor;

	script_reset(3);
	script_hold(1, SCRIPT_THAW);
	CHECK(marker_write(marker_path, temporary, &marker) == 0);
	successor = fork();
	if (successor == 0) {
		usleep(100 * 1000);
		strcpy(marker.session, "newer");
		_exit(marker_write(marker_path, temporary, &marker));
	}
	CHECK(thaw_marked(&what) == 1);
	CHECK(waitpid(successor, NULL, 0) == successor);
	CHECK(marker_read(marker_path, &in, problem, sizeof problem) == 1);
	CHECK(strcmp(in.session, "newer") == 0 && in.entries[0].state == MARKED_FROZEN);
	marker_free(&in);
	unlink(marker_path);
}

/* A device below is suspended: nothing is thawed before the bound that the marker names. */
static void inside_section(void)
{
	struct marker marker = base();
	uint64_t begun = clock_now();

	script_reset(3);
	marker.critical_until = deadline_after(begun, 300);
	CHECK(marker_write(marker_path, temporary, &marker) == 0);
	CHECK(thaw_marked(&what) == 0);
	CHECK(clock_now() >= marker.critical_until && access(marker_path, F_OK) < 0);
}

/* A new freezer has taken the marker over by then, and freezes for a session of its own: that is not thawed. */
static void taken_over_inside_section(void)
{
	struct marker marker = base();
	pid_t successor;

	script_reset(3);
	marker.critical_until = deadline_after(clock_now(), 300);
	CHECK(marker_write(marker_path, temporary, &marker) == 0);
	successor = fork();
	if (successor == 0) {
		usleep(100 * 1000);
		_exit(unlink(marker_path));
	}
	CHECK(thaw_marked(&what) == 1);
	CHECK(waitpid(successor, NULL, 0) == successor);
	CHECK(access(marker_path, F_OK) < 0);
}

/* Marked, alive, silent: it is killed. With another start time it is another process and left alone. */
static void silent_freezer(void)
{
	struct marker marker = base();
	pid_t child = fork();
	int status;

	if (child == 0) {
		pause();
		_exit(0);
	}
	script_reset(3);
	marker.pid = child;
	marker.start_time = process_start_time(child) + 1;
	CHECK(marker_write(marker_path, temporary, &marker) == 0);
	CHECK(thaw_marked(&what) == 0);
	CHECK(waitpid(child, &status, WNOHANG) == 0);

	marker.start_time--;
	marker.entries[0].state = MARKED_INTENDED; /* never frozen: EINVAL is final once it has ended */
	CHECK(marker_write(marker_path, temporary, &marker) == 0);
	CHECK(thaw_marked(&what) == 0);
	CHECK(waitpid(child, &status, 0) == child && WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

/* As on Linux 4.18: neither pidfd_open (5.3) nor pidfd_send_signal (5.1). */
static void without_pidfds(void)
{
	pid_t child = fork();
	struct process found;
	int status;

	if (child == 0) {
		switch_off_pidfds();
		CHECK(process_find(getpid(), &found) && found.pidfd == -1 && found.start_time != 0);
		CHECK(!process_ended(&found, 20));
		silent_freezer();
		_exit(0);
	}
	CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

/* What hung when its freezer died: each has a marker of its own, and their bounds do not add up. */
static void many_that_hang(void)
{
	enum { MANY = 12 };
	struct marker marker;
	char aside[MANY][300], aside_temporary[300];
	uint64_t begun;

	script_reset(3);
	marker = base();
	marker.count = 1;
	marker.entries[0].state = MARKED_INTENDED;
	script_hold(0, SCRIPT_THAW);
	for (int i = 0; i < MANY; i++) {
		snprintf(aside[i], sizeof aside[i], "%s.left-4194303-1-%d", marker_path, i);
		snprintf(aside_temporary, sizeof aside_temporary, "%s.new", marker_path);
		CHECK(marker_write(aside[i], aside_temporary, &marker) == 0);
	}
	begun = clock_now();
	CHECK(thaw_marked(&what) == 1);
	CHECK(clock_now() - begun < 4000000000u); /* 300 ms and a second of grace, once */
	for (int i = 0; i < MANY; i++)
		CHECK(access(aside[i], F_OK) == 0);
	script_let_go(0, SCRIPT_THAW);
	CHECK(thaw_marked(&what) == 0);
	for (int i = 0; i < MANY; i++)
		CHECK(access(aside[i], F_OK) < 0);
}

void test_thaw_marked(void)
{
	snprintf(marker_path, sizeof marker_path, "%s/frozen", scratch);
	snprintf(temporary, sizeof temporary, "%s/frozen.new", scratch);
	snprintf(socket_path, sizeof socket_path, "%s/nobody.sock", scratch);
	snprintf(knob, sizeof knob, "%s/knob", scratch);
	what = (struct thaw_job){ marker_path, socket_path, knob, &scripted_calls, 300 };
	script_reset(3);
	clean_run();
	one_cannot_be_thawed();
	gone_mount();
	newer_session();
	inside_section();
	taken_over_inside_section();
	silent_freezer();
	passed("--thaw-marked");
	without_pidfds();
	passed("--thaw-marked without pidfds");
	many_that_hang();
	passed("--thaw-marked, many that hang");
}
