/*
 * The whole server over its socket, with scripted filesystems: slow ones, ones
 * that fail, thaws and expiries and closed connections in every state. Run
 * under AddressSanitizer and ThreadSanitizer.
 */
#define _GNU_SOURCE
#include "check.h"
#include "leftovers.h"
#include "process.h"
#include "scripted-calls.h"
#include "rcu.h"
#include "server.h"
#include "session.h"
#include "socket-file.h"
#include "system.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

/* ---- a server, a client ---- */

static char socket_path[256], marker_path[256], knob[256];
static int listening, stop_fd, wake_fd;
static pthread_t server;

static void *serve(void *unused)
{
	server_run(listening, stop_fd, wake_fd);
	return unused;
}

static void start_over(const char *marker)
{
	struct session_setup setup = {
		.calls = &scripted_calls,
		.marker = marker,
		.rcu_knob = knob,
		.kill_holders = true,
	};

	setup.wake = wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	CHECK(session_init(&setup) == 0);
	CHECK(leftovers_take(marker, &scripted_calls, wake_fd) == 0);
	listening = socket_listen(socket_path);
	CHECK(listening >= 0);
	CHECK(pthread_create(&server, NULL, serve, NULL) == 0);
}

static void start(int filesystems, const char *marker)
{
	script_reset(filesystems);
	start_over(marker);
}

static void nap(int ms)
{
	nanosleep(&(struct timespec){ .tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000L }, NULL);
}

static void ask_to_stop(void)
{
	uint64_t one = 1;

	CHECK(write(stop_fd, &one, sizeof one) == sizeof one);
}

static void finish(void)
{
	ask_to_stop();
	pthread_join(server, NULL);
	for (int i = 0; workers_alive() > 0; i++) {
		CHECK(i < 300);
		nap(10);
		abandoned_step(); /* the loop has ended: nothing of them may freeze */
	}
	nap(5); /* the last one frees its memory after it was counted */
	close(listening);
	close(stop_fd);
	close(wake_fd);
	CHECK(script_thaws_during_freeze() == 0);
	CHECK(access(marker_path, F_OK) < 0);
}

struct client {
	int fd;
	size_t used;
	char buffer[4096];
	char line[4096];
};

static void dial(struct client *c)
{
	struct sockaddr_un to = { .sun_family = AF_UNIX };

	memset(c, 0, sizeof *c);
	strcpy(to.sun_path, socket_path);
	c->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	CHECK(connect(c->fd, (struct sockaddr *)&to, sizeof to) == 0);
}

static void hang_up(struct client *c)
{
	close(c->fd);
}

__attribute__((format(printf, 2, 3))) static void say(struct client *c, const char *format, ...)
{
	char line[4096];
	va_list arguments;
	int length;

	va_start(arguments, format);
	length = vsnprintf(line, sizeof line - 1, format, arguments);
	va_end(arguments);
	line[length++] = '\n';
	CHECK(send(c->fd, line, (size_t)length, MSG_NOSIGNAL) == length);
}

/* The next line, or NULL at the end of the connection. */
static const char *hear(struct client *c, int limit_ms)
{
	for (;;) {
		char *newline = memchr(c->buffer, '\n', c->used);
		struct pollfd poll_fd = { .fd = c->fd, .events = POLLIN };
		ssize_t got;

		if (newline != NULL) {
			size_t length = (size_t)(newline - c->buffer);

			memcpy(c->line, c->buffer, length);
			c->line[length] = '\0';
			c->used -= length + 1;
			memmove(c->buffer, newline + 1, c->used);
			return c->line;
		}
		CHECK(poll(&poll_fd, 1, limit_ms) == 1);
		got = recv(c->fd, c->buffer + c->used, sizeof c->buffer - c->used, 0);
		if (got <= 0)
			return NULL;
		c->used += (size_t)got;
	}
}

static void expect(struct client *c, const char *prefix)
{
	const char *line = hear(c, 4000);

	if (line == NULL || strncmp(line, prefix, strlen(prefix)) != 0) {
		fprintf(stderr, "expected '%s...', found '%s'\n", prefix, line == NULL ? "the end" : line);
		abort();
	}
}

static void expect_end(struct client *c)
{
	while (hear(c, 4000) != NULL)
		;
}

static void expect_silence(struct client *c, int ms)
{
	struct pollfd poll_fd = { .fd = c->fd, .events = POLLIN };

	CHECK(c->used == 0 && poll(&poll_fd, 1, ms) == 0);
}

#define WITHIN(ms, condition)                                     \
	do {                                                      \
		uint64_t until = deadline_after(clock_now(), ms); \
		while (!(condition)) {                            \
			CHECK(clock_now() < until && #condition); \
			nap(2);                                   \
		}                                                 \
	} while (0)

struct aside_count {
	const char *state;
	int found;
};

static void count_aside(const char *path, void *context)
{
	struct aside_count *count = context;
	static struct marker in;
	char problem[512];
	int read = marker_read(path, &in, problem, sizeof problem);

	if (read == 0)
		return; /* it came back between the look into the folder and this one */
	CHECK(read == 1 && in.count == 1);
	CHECK(in.pid == getpid() && in.start_time == process_start_time(getpid()));
	count->found += count->state[0] == '\0' || strcmp(marked_name(in.entries[0].state), count->state) == 0;
	marker_free(&in);
}

/* How many that hang are marked as being in STATE; "": in any. */
static int asides(const char *state)
{
	struct aside_count count = { state, 0 };

	markers_set_aside(marker_path, count_aside, &count);
	return count.found;
}

static void plan(struct client *c, int filesystems, int longest_ms)
{
	dial(c);
	say(c, "plan session tester %d 20000 1", longest_ms);
	expect(c, "ok plan");
	for (int i = 0; i < filesystems; i++) {
		say(c, "fs 0 1 0:0 %s", script_path(i));
		expect(c, "ok fs ");
	}
}

/* The number that the next one will have, by the one that this one has. */
static unsigned next_aside(void)
{
	struct client c;
	unsigned number = 0;
	char sought[300];

	plan(&c, 1, 10000);
	script_hold(0, SCRIPT_FREEZE);
	say(&c, "freeze 8000 50");
	expect(&c, "fs 0 freeze 110 ");
	expect(&c, "error freeze ");
	hang_up(&c);
	while (number < 1000) {
		snprintf(sought, sizeof sought, "%s.left-%d-%llu-%u", marker_path, (int)getpid(),
			 (unsigned long long)process_start_time(getpid()), ++number);
		if (access(sought, F_OK) == 0)
			break;
		if (number == 999)
			number = 0, nap(2);
	}
	script_let_go(0, SCRIPT_FREEZE);
	WITHIN(1000, access(sought, F_OK) < 0);
	return number + 1;
}

/* ---- the tests ---- */

static void freezes_and_thaws(void)
{
	struct client c;

	start(2, marker_path);
	plan(&c, 2, 10000);
	say(&c, "sync 1000");
	expect(&c, "fs 0 sync 0 ");
	expect(&c, "fs 1 sync 0 ");
	expect(&c, "ok sync");
	say(&c, "freeze 5000");
	expect(&c, "fs 0 freeze 0 ");
	expect(&c, "fs 1 freeze 0 ");
	expect(&c, "ok freeze 2 ");
	CHECK(script_frozen(0) && script_frozen(1));
	say(&c, "fs 0 1 0:0 %s", script_path(0));
	expect(&c, "error state fs:\\040expected\\040planned,\\040found\\040frozen");
	say(&c, "freeze 5000");
	expect(&c, "error state ");
	say(&c, "plan s o 1 1 0");
	expect(&c, "error state ");
	say(&c, "thaw");
	expect(&c, "fs 0 thaw 0 ");
	expect(&c, "fs 1 thaw 0 ");
	expect(&c, "ok thaw");
	CHECK(!script_frozen(0) && !script_frozen(1));
	say(&c, "thaw");
	expect(&c, "error state ");
	say(&c, "plan again o 1000 1000 0");
	expect(&c, "ok plan");
	say(&c, "thaw");
	expect(&c, "ok thaw");
	hang_up(&c);
	finish();
}

static void requests_wait_their_turn(void)
{
	struct client c;

	start(1, marker_path);
	plan(&c, 1, 10000);
	script_hold(0, SCRIPT_SYNC);
	say(&c, "sync 2000\nfreeze 5000\nplan a b 1 1 0\nhello");
	nap(50);
	script_let_go(0, SCRIPT_SYNC);
	expect(&c, "fs 0 sync 0 ");
	expect(&c, "ok sync");
	expect(&c, "fs 0 freeze 0 ");
	expect(&c, "ok freeze 1 ");
	expect(&c, "error state ");
	expect(&c, "ok hello 1 ");
	say(&c, "thaw\nplan a b 1 1 0");
	expect(&c, "fs 0 thaw 0 ");
	expect(&c, "ok thaw");
	expect(&c, "ok plan");
	hang_up(&c);
	finish();
}

static void a_failing_freeze_is_not_thawed(void)
{
	struct client c;

	start(2, marker_path);
	plan(&c, 2, 10000);
	script_fail(0, SCRIPT_FREEZE, EIO, 1);
	say(&c, "freeze 5000");
	expect(&c, "fs 0 freeze 5 ");
	expect(&c, "fs 1 freeze 0 ");
	expect(&c, "ok freeze 1 ");
	say(&c, "thaw");
	expect(&c, "fs 0 thaw 0 0 0 0");
	expect(&c, "fs 1 thaw 0 ");
	expect(&c, "ok thaw");
	CHECK(script_calls(0, SCRIPT_THAW) == 0 && script_calls(1, SCRIPT_THAW) == 1);
	hang_up(&c);
	finish();
}

static void a_foreign_thaw_is_told(void)
{
	struct client c;

	start(1, marker_path);
	plan(&c, 1, 10000);
	say(&c, "freeze 5000");
	expect(&c, "fs 0 freeze 0 ");
	expect(&c, "ok freeze 1 ");
	script_thaw_by_stranger(0);
	say(&c, "thaw");
	expect(&c, "fs 0 thaw 22 ");
	expect(&c, "ok thaw");
	hang_up(&c);
	finish();
}

static void thaw_during_freeze(void)
{
	struct client c;

	start(2, marker_path);
	plan(&c, 2, 10000);
	script_hold(0, SCRIPT_FREEZE);
	say(&c, "freeze 5000");
	WITHIN(2000, script_calls(0, SCRIPT_FREEZE) == 1 && script_frozen(1));
	say(&c, "renew 6000");
	expect(&c, "ok renew ");
	say(&c, "status");
	expect(&c, "ok status freezing session tester ");
	say(&c, "thaw");
	expect(&c, "error state freeze:\\040ended\\040by\\040thaw");
	WITHIN(1000, !script_frozen(1)); /* the dead one does not hold it */
	CHECK(script_calls(0, SCRIPT_THAW) == 0);
	script_let_go(0, SCRIPT_FREEZE);
	expect(&c, "fs 0 thaw 0 ");
	expect(&c, "fs 1 thaw 0 ");
	expect(&c, "ok thaw");
	CHECK(!script_frozen(0));
	hang_up(&c);
	finish();
}

static void expiry_during_freeze(void)
{
	struct client c;

	start(2, marker_path);
	plan(&c, 2, 10000);
	script_hold(0, SCRIPT_FREEZE);
	say(&c, "freeze 200");
	expect(&c, "fs 1 freeze 0 ");
	expect(&c, "error expired ");
	expect(&c, "event expired ");
	WITHIN(1000, !script_frozen(1));
	say(&c, "renew 100");
	expect(&c, "error expired ");
	say(&c, "thaw");
	expect_silence(&c, 100);
	script_let_go(0, SCRIPT_FREEZE);
	expect(&c, "fs 0 thaw 0 ");
	expect(&c, "fs 1 thaw 0 ");
	expect(&c, "event thawed expired");
	expect(&c, "error expired ");
	say(&c, "status");
	expect(&c, "ok status idle");
	hang_up(&c);
	finish();
}

static void expiry_while_frozen(void)
{
	struct client c, other;

	start(1, marker_path);
	plan(&c, 1, 10000);
	say(&c, "freeze 100");
	expect(&c, "fs 0 freeze 0 ");
	expect(&c, "ok freeze 1 ");
	expect(&c, "event expired ");
	expect(&c, "fs 0 thaw 0 ");
	expect(&c, "event thawed expired");
	dial(&other);
	say(&other, "status");
	expect(&other, "ok status thawing session tester ");
	/* It does not let go. Being this process, it is not killed, but loses its connection. */
	expect_end(&c);
	say(&other, "status");
	expect(&other, "ok status idle");
	hang_up(&c);
	hang_up(&other);
	finish();
}

static void a_thaw_that_does_not_return(void)
{
	struct client c;

	start(2, marker_path);
	plan(&c, 2, 60000);
	script_hold(0, SCRIPT_THAW);
	script_fail(1, SCRIPT_THAW, EIO, 3); /* tried again until it works */
	say(&c, "freeze 60000");
	expect(&c, "fs 0 freeze 0 ");
	expect(&c, "fs 1 freeze 0 ");
	expect(&c, "ok freeze 2 ");
	say(&c, "thaw");
	expect(&c, "fs 0 thaw 110 ");
	expect(&c, "fs 1 thaw 0 ");
	expect(&c, "error thaw ");
	CHECK(script_calls(1, SCRIPT_THAW) == 4);
	say(&c, "status");
	expect(&c, "ok status thawing ");
	script_let_go(0, SCRIPT_THAW);
	say(&c, "thaw");
	expect(&c, "fs 0 thaw 0 ");
	expect(&c, "fs 1 thaw 0 ");
	expect(&c, "ok thaw");
	hang_up(&c);
	finish();
}

/* Asked again it is given up: frozen, marked, out of the way, and thawed when the kernel lets it. */
static void a_hung_thaw_is_given_up(void)
{
	struct client c, next;
	int fd;

	for (int way = 0; way < 2; way++) { /* asked again; connection closed */
		start(2, marker_path);
		plan(&c, 2, 60000);
		script_hold(0, SCRIPT_THAW);
		say(&c, "freeze 60000");
		expect(&c, "fs 0 freeze 0 ");
		expect(&c, "fs 1 freeze 0 ");
		expect(&c, "ok freeze 2 ");
		say(&c, "thaw");
		if (way == 0) {
			expect(&c, "fs 0 thaw 110 ");
			expect(&c, "fs 1 thaw 0 ");
			expect(&c, "error thaw ");
			say(&c, "thaw");
			expect(&c, "fs 0 thaw 110 ");
			expect(&c, "fs 1 thaw 0 ");
			expect(&c, "ok thaw 1");
		}
		hang_up(&c);
		WITHIN(3000, asides("frozen") == 1 && access(marker_path, F_OK) < 0);
		plan(&next, 0, 10000);
		say(&next, "fs 0 1 0:0 %s", script_path(0));
		expect(&next, "error fs 16 ");
		say(&next, "fs 0 1 0:0 %s", script_path(1));
		expect(&next, "ok fs 0");
		say(&next, "freeze 5000");
		expect(&next, "fs 0 freeze 0 ");
		expect(&next, "ok freeze 1 ");
		script_let_go(0, SCRIPT_THAW);
		WITHIN(1000, !script_frozen(0) && asides("") == 0);
		CHECK(script_frozen(1));
		hang_up(&next);
		WITHIN(1000, !script_frozen(1));
		fd = open_mount_point(script_path(0));
		CHECK(fd >= 0 && scripted_calls.thaw(fd) == EINVAL);
		close(fd);
		finish();
	}
}

/* The kernel lets go of one between its marker and the moment it is given up: nothing is left of it. */
static void a_thaw_that_returns_while_it_is_marked(void)
{
	struct client c;

	for (int way = 0; way < 2; way++) { /* asked again; connection closed */
		start(2, marker_path);
		plan(&c, 2, 60000);
		script_hold(0, SCRIPT_THAW);
		script_let_go_while_marked(0);
		say(&c, "freeze 60000");
		expect(&c, "fs 0 freeze 0 ");
		expect(&c, "fs 1 freeze 0 ");
		expect(&c, "ok freeze 2 ");
		if (way == 0) {
			say(&c, "thaw");
			expect(&c, "fs 0 thaw 110 ");
			expect(&c, "fs 1 thaw 0 ");
			expect(&c, "error thaw ");
			say(&c, "thaw");
			expect(&c, "fs 0 thaw 0 ");
			expect(&c, "fs 1 thaw 0 ");
			expect(&c, "ok thaw");
			hang_up(&c);
		} else {
			hang_up(&c);
			WITHIN(3000, !script_frozen(0));
			nap(300);
		}
		CHECK(asides("") == 0 && access(marker_path, F_OK) < 0);
		plan(&c, 2, 10000); /* and nobody is refused it */
		hang_up(&c);
		finish();
	}
}

/* While what hangs cannot be written down the session keeps it: nothing that may freeze is without a marker. */
static void given_up_without_a_place_to_mark_it(void)
{
	struct client c, other;
	unsigned number;
	char aside[400];

	start(1, marker_path);
	number = next_aside();
	plan(&c, 1, 10000);
	script_hold(0, SCRIPT_FREEZE);
	/* In the way of the temporary file that it is written to. */
	snprintf(aside, sizeof aside, "%s.left-%d-%llu-%u.new", marker_path, (int)getpid(),
		 (unsigned long long)process_start_time(getpid()), number);
	CHECK(mkdir(aside, 0700) == 0);
	say(&c, "freeze 8000 100");
	expect(&c, "fs 0 freeze 110 ");
	expect(&c, "error freeze ");
	say(&c, "thaw");
	expect(&c, "fs 0 thaw 110 ");
	expect(&c, "error thaw thaw:\\040not\\040all\\040is\\040thawed,\\040and\\040what\\040hangs\\040cannot");
	hang_up(&c);
	nap(100);
	dial(&other);
	say(&other, "status");
	expect(&other, "ok status thawing ");
	CHECK(access(marker_path, F_OK) == 0);
	CHECK(rmdir(aside) == 0);
	WITHIN(2500, asides("intended") == 1);
	say(&other, "status");
	expect(&other, "ok status idle ");
	script_let_go(0, SCRIPT_FREEZE);
	WITHIN(1000, script_calls(0, SCRIPT_THAW) == 2 && asides("") == 0);
	hang_up(&other);
	finish();
}

/* A sync and an open that hang park one thread, not one for each session. */
static void what_hangs_before_the_freeze(void)
{
	struct client c;

	start(3, marker_path);
	script_hold(0, SCRIPT_SYNC);
	script_hold(1, SCRIPT_OPEN);
	for (int times = 0; times < 3; times++) {
		plan(&c, 0, 10000);
		say(&c, "fs 0 1 0:0 %s", script_path(1));
		if (times == 0) {
			say(&c, "status"); /* is answered meanwhile */
			expect(&c, "ok status planned ");
		}
		expect(&c, times == 0 ? "error fs 110 fs:\\040it\\040could\\040not\\040be\\040opened" : "error fs 16 ");
		say(&c, "fs 0 1 0:0 %s", script_path(0));
		expect(&c, times == 0 ? "ok fs 0" : "error fs 16 ");
		say(&c, "fs 0 1 0:0 %s", script_path(2));
		expect(&c, "ok fs ");
		say(&c, "sync 100");
		if (times == 0)
			expect(&c, "fs 0 sync 110 ");
		expect(&c, times == 0 ? "fs 1 sync 0 " : "fs 0 sync 0 ");
		expect(&c, "ok sync");
		hang_up(&c);
		nap(20);
		CHECK(asides("") == 0); /* nothing of it may freeze */
	}
	CHECK(script_calls(0, SCRIPT_SYNC) == 1 && script_calls(1, SCRIPT_OPEN) == 1 && workers_alive() == 2);
	dial(&c);
	say(&c, "hung");
	expect(&c, "hung sync ");
	expect(&c, "hung open ");
	expect(&c, "ok hung");
	hang_up(&c);
	script_let_go(0, SCRIPT_SYNC);
	script_let_go(1, SCRIPT_OPEN);
	WITHIN(1000, workers_alive() == 0);
	plan(&c, 3, 1000);
	hang_up(&c);
	finish();
}

static void a_late_sync_is_left_running(void)
{
	struct client c, next;

	start(2, marker_path);
	plan(&c, 2, 10000);
	script_hold(0, SCRIPT_SYNC);
	say(&c, "sync 100");
	expect(&c, "fs 0 sync 110 ");
	expect(&c, "fs 1 sync 0 ");
	expect(&c, "ok sync");
	say(&c, "thaw");
	expect(&c, "ok thaw");
	plan(&next, 0, 1000);
	CHECK(workers_alive() >= 1);
	hang_up(&next);
	hang_up(&c);

	/* A freeze behind it waits for it, and is taken back by a thaw. */
	script_let_go(0, SCRIPT_SYNC);
	WITHIN(1000, workers_alive() == 0);
	script_hold(0, SCRIPT_SYNC);
	plan(&c, 2, 10000);
	say(&c, "sync 50");
	expect(&c, "fs 0 sync 110 ");
	expect(&c, "fs 1 sync 0 ");
	expect(&c, "ok sync");
	say(&c, "freeze 5000");
	WITHIN(1000, script_frozen(1));
	script_hold(1, SCRIPT_THAW); /* so that the session lives on when the sync returns */
	say(&c, "thaw");
	expect(&c, "error state ");
	WITHIN(1000, script_calls(1, SCRIPT_THAW) == 1);
	script_let_go(0, SCRIPT_SYNC);
	nap(100);
	CHECK(script_calls(0, SCRIPT_FREEZE) == 0);
	script_let_go(1, SCRIPT_THAW);
	expect(&c, "fs 0 thaw 0 0 0 0");
	expect(&c, "fs 1 thaw 0 ");
	expect(&c, "ok thaw");
	hang_up(&c);
	finish();
	CHECK(script_calls(0, SCRIPT_FREEZE) == 0);
}

static void a_lost_write_is_told(void)
{
	struct client c;

	/* The kernel tells of it once: a later sync that goes well does not take it back. */
	start(2, marker_path);
	plan(&c, 2, 10000);
	script_fail(0, SCRIPT_SYNC, EIO, 1);
	for (int pass = 0; pass < 2; pass++) {
		say(&c, "sync 1000");
		expect(&c, "fs 0 sync 5 ");
		expect(&c, "fs 1 sync 0 ");
		expect(&c, "ok sync");
	}
	say(&c, "freeze 5000");
	expect(&c, "fs 0 freeze 0 ");
	expect(&c, "fs 1 freeze 0 ");
	expect(&c, "ok freeze 2 ");
	hang_up(&c);
	finish();

	/* Told with the freeze if the sync was late; one that had not begun is not made of what is frozen. */
	start(2, marker_path);
	plan(&c, 2, 10000);
	script_hold(0, SCRIPT_SYNC);
	script_fail(0, SCRIPT_SYNC, EIO, 1);
	for (int pass = 0; pass < 2; pass++) {
		say(&c, "sync 50");
		expect(&c, "fs 0 sync 110 ");
		expect(&c, "fs 1 sync 0 ");
		expect(&c, "ok sync");
	}
	say(&c, "freeze 5000");
	WITHIN(1000, script_frozen(1));
	script_let_go(0, SCRIPT_SYNC);
	expect(&c, "fs 0 sync 5 ");
	expect(&c, "fs 0 freeze 0 ");
	expect(&c, "fs 1 freeze 0 ");
	expect(&c, "ok freeze 2 ");
	CHECK(script_calls(0, SCRIPT_SYNC) == 1);
	say(&c, "thaw");
	expect(&c, "fs 0 thaw 0 ");
	expect(&c, "fs 1 thaw 0 ");
	expect(&c, "ok thaw");
	hang_up(&c);
	finish();
	CHECK(script_calls(0, SCRIPT_SYNC) == 1);
}

static void thaw_during_sync(void)
{
	struct client c;

	start(1, marker_path);
	plan(&c, 1, 10000);
	script_hold(0, SCRIPT_SYNC);
	say(&c, "sync 5000");
	WITHIN(1000, script_calls(0, SCRIPT_SYNC) == 1);
	say(&c, "renew 100");
	expect(&c, "error state renew:");
	say(&c, "thaw");
	expect(&c, "error state sync:");
	expect(&c, "ok thaw");
	script_let_go(0, SCRIPT_SYNC);
	hang_up(&c);
	finish();
}

static void groups(void)
{
	static const int group[] = { 5, 2, 5, 9 };
	struct client c;

	start(4, marker_path);
	plan(&c, 0, 10000);
	for (int i = 0; i < 4; i++) {
		say(&c, "fs %d 1 0:0 %s", group[i], script_path(i));
		expect(&c, "ok fs ");
	}
	script_hold(0, SCRIPT_FREEZE);
	say(&c, "freeze 300");
	WITHIN(1000, script_frozen(1) && script_frozen(2) && script_calls(0, SCRIPT_FREEZE) == 1);
	CHECK(script_calls(3, SCRIPT_FREEZE) == 0);
	expect(&c, "fs 1 freeze 0 ");
	expect(&c, "fs 2 freeze 0 ");
	expect(&c, "error expired ");
	expect(&c, "event expired ");
	/* The group of the dead one gets its time, then the one below is thawed all the same. */
	WITHIN(1000, !script_frozen(1) && !script_frozen(2));
	CHECK(script_calls(3, SCRIPT_FREEZE) == 0);
	script_let_go(0, SCRIPT_FREEZE);
	for (int i = 0; i < 4; i++)
		expect(&c, i == 3 ? "fs 3 thaw 0 0 0 0" : "fs ");
	expect(&c, "event thawed expired");
	hang_up(&c);
	finish();
	CHECK(script_calls(3, SCRIPT_FREEZE) == 0);
}

/* The hung one is named, the others are thawed at once and without being told, and it itself when it returns. */
static void a_hung_freeze_is_given_up(void)
{
	struct client c, other;
	uint64_t begun;

	start(3, marker_path);
	plan(&c, 0, 10000);
	for (int i = 0; i < 3; i++) {
		say(&c, "fs %d 1 0:0 %s", i == 0 ? 1 : 2, script_path(i));
		expect(&c, "ok fs ");
	}
	script_hold(1, SCRIPT_FREEZE);
	say(&c, "freeze 8000 3600001");
	expect(&c, "error limit ");
	begun = clock_now();
	say(&c, "freeze 8000 200");
	expect(&c, "fs 0 freeze 0 ");
	expect(&c, "fs 2 freeze 0 ");
	expect(&c, "fs 1 freeze 110 ");
	CHECK(c.line[strlen(c.line) - 2] == ' ' && c.line[strlen(c.line) - 1] == '0');
	expect(&c, "error freeze freeze:\\040not\\040frozen\\040within\\040200\\040ms");
	CHECK(strstr(c.line, script_path(1)) != NULL && strstr(c.line, script_path(2)) == NULL);
	CHECK(clock_now() - begun > 190000000u && clock_now() - begun < 1000000000u);
	/* Neither the holder nor the next group is waited for. */
	WITHIN(200, !script_frozen(0) && !script_frozen(2));
	say(&c, "renew 1000");
	expect(&c, "error state ");
	begun = clock_now();
	say(&c, "thaw");
	expect(&c, "fs 0 thaw 0 ");
	expect(&c, "fs 1 thaw 110 0 0 0");
	expect(&c, "fs 2 thaw 0 ");
	expect(&c, "ok thaw 1");
	CHECK(clock_now() - begun < 500000000u);
	hang_up(&c);

	/* It is named, in a marker of its own and to everybody who asks, and the next session works without it. */
	CHECK(access(marker_path, F_OK) < 0 && asides("intended") == 1);
	for (int times = 0; times < 2; times++) {
		plan(&other, 1, 10000);
		say(&other, "fs 0 1 0:0 %s", script_path(1));
		expect(&other,
		       "error fs 16 fs:\\040given\\040up\\040by\\040session\\040session:\\040its\\040freeze\\040has");
		say(&other, "hung");
		expect(&other, "hung freeze ");
		CHECK(strstr(other.line, " session ") != NULL && strstr(other.line, script_path(1)) != NULL);
		expect(&other, "ok hung");
		say(&other, "freeze 5000");
		expect(&other, "fs 0 freeze 0 ");
		expect(&other, "ok freeze 1 ");
		if (times == 0) {
			say(&other, "thaw");
			expect(&other, "fs 0 thaw 0 ");
			expect(&other, "ok thaw");
			CHECK(asides("intended") == 1);
			hang_up(&other);
			nap(20);
		}
	}

	/* It returns in the middle of the later session: thawed at once, and that session is left alone. */
	CHECK(script_calls(1, SCRIPT_THAW) == 0);
	script_let_go(1, SCRIPT_FREEZE);
	WITHIN(1000, script_calls(1, SCRIPT_THAW) == 1 && !script_frozen(1));
	WITHIN(1000, asides("") == 0);
	CHECK(script_frozen(0) && access(marker_path, F_OK) == 0);
	say(&other, "hung");
	expect(&other, "ok hung");
	say(&other, "thaw");
	expect(&other, "fs 0 thaw 0 ");
	expect(&other, "ok thaw");
	CHECK(script_calls(1, SCRIPT_FREEZE) == 1);

	/* It returns before the holder asks: then all is thawed by the time it does. Each group has the limit anew. */
	for (int i = 0; i < 3; i++)
		script_hold(i, SCRIPT_FREEZE);
	plan(&c, 0, 10000);
	for (int i = 0; i < 3; i++) {
		say(&c, "fs %d 1 0:0 %s", i, script_path(i));
		expect(&c, "ok fs ");
	}
	say(&c, "freeze 8000 300");
	for (int i = 0; i < 2; i++) {
		nap(200);
		script_let_go(i, SCRIPT_FREEZE);
	}
	expect(&c, "fs 0 freeze 0 ");
	expect(&c, "fs 1 freeze 0 ");
	expect(&c, "fs 2 freeze 110 ");
	expect(&c, "error freeze ");
	script_let_go(2, SCRIPT_FREEZE);
	WITHIN(1000, script_calls(2, SCRIPT_THAW) == 2 && !script_frozen(0) && !script_frozen(1) && !script_frozen(2));
	say(&c, "thaw");
	for (int i = 0; i < 3; i++)
		expect(&c, "fs ");
	expect(&c, "ok thaw");
	hang_up(&c);
	hang_up(&other);
	finish();
}

/* A holder that does not let go after that loses its session at the end of its lease. */
static void given_up_and_not_let_go(void)
{
	struct client c;
	uint64_t begun;

	start(1, marker_path);
	plan(&c, 1, 10000);
	script_hold(0, SCRIPT_FREEZE);
	begun = clock_now();
	say(&c, "freeze 1500 100");
	expect(&c, "fs 0 freeze 110 ");
	expect(&c, "error freeze ");
	expect_end(&c);
	CHECK(clock_now() - begun > 1400000000u && clock_now() - begun < 2500000000u);
	WITHIN(1000, asides("intended") == 1 && access(marker_path, F_OK) < 0);
	script_let_go(0, SCRIPT_FREEZE);
	WITHIN(1000, script_calls(0, SCRIPT_THAW) == 1 && asides("") == 0);
	hang_up(&c);
	finish();
}

/* Read while the answer of a failed one is fresh: a successor must not thaw what somebody else froze. */
static void a_refusal_is_marked_before_it_is_told(void)
{
	struct client c;
	char text[512];
	FILE *file;
	size_t got;

	for (int times = 0; times < 50; times++) {
		start(2, marker_path);
		plan(&c, 2, 10000);
		script_fail(1, SCRIPT_FREEZE, EBUSY, 1);
		say(&c, "freeze 5000");
		expect(&c, "fs 0 freeze 0 ");
		file = fopen(marker_path, "r");
		CHECK(file != NULL);
		got = fread(text, 1, sizeof text - 1, file);
		fclose(file);
		text[got] = '\0';
		CHECK(strstr(text, "\nrefused ") != NULL && strstr(text, "\nfrozen ") != NULL);
		hang_up(&c);
		WITHIN(1000, !script_frozen(0));
		WITHIN(1000, access(marker_path, F_OK) < 0);
		finish();
	}
}

static void closing_in_each_state(void)
{
	struct client c, watcher;

	start(2, marker_path);
	dial(&watcher);
	for (int state = 0; state < 5; state++) {
		plan(&c, 2, 10000);
		if (state == 1)
			script_hold(0, SCRIPT_SYNC);
		if (state == 2)
			script_hold(0, SCRIPT_FREEZE);
		if (state == 4)
			script_hold(0, SCRIPT_THAW);
		if (state == 1)
			say(&c, "sync 5000");
		if (state >= 2)
			say(&c, "freeze 5000");
		if (state == 2)
			WITHIN(1000, script_frozen(1));
		if (state >= 3) {
			expect(&c, "fs 0");
			expect(&c, "fs 1");
			expect(&c, "ok freeze 2 ");
		}
		if (state == 4)
			say(&c, "thaw");
		if (state == 4)
			WITHIN(1000, !script_frozen(1));
		hang_up(&c);
		WITHIN(1000, !script_frozen(1));
		if (state == 2 || state == 4) {
			nap(50);
			say(&watcher, "status");
			expect(&watcher, "ok status thawing ");
			say(&watcher, "plan s o 1000 1000 0");
			expect(&watcher, "error busy tester ");
		}
		script_let_go(0, SCRIPT_SYNC);
		script_let_go(0, SCRIPT_FREEZE);
		script_let_go(0, SCRIPT_THAW);
		for (int tries = 0;; tries++) {
			CHECK(tries < 200);
			say(&watcher, "status");
			if (strncmp(hear(&watcher, 1000), "ok status idle", 14) == 0)
				break;
			nap(10);
		}
		CHECK(!script_frozen(0) && !script_frozen(1));
	}
	hang_up(&watcher);
	finish();
}

static uint64_t marked_section(void)
{
	static struct marker in;
	char problem[512];
	uint64_t until;

	CHECK(marker_read(marker_path, &in, problem, sizeof problem) == 1);
	until = in.critical_until;
	marker_free(&in);
	return until;
}

static void critical_sections(void)
{
	struct client c;

	start(1, marker_path);
	for (int way = 0; way < 4; way++) { /* off; bound; connection closed; thaw */
		plan(&c, 1, 10000);
		say(&c, "freeze 100");
		expect(&c, "fs 0 freeze 0 ");
		expect(&c, "ok freeze 1 ");
		say(&c, "critical on %d", way == 0 ? 20000 : 400);
		expect(&c, "ok critical");
		CHECK(marked_section() > clock_now()); /* for whoever thaws should this one die */
		if (way == 2)
			hang_up(&c);
		else
			expect(&c, "event expired ");
		nap(150);
		CHECK(script_frozen(0));
		if (way == 0) {
			say(&c, "critical on 1000");
			expect(&c, "error expired ");
			say(&c, "critical off");
			expect(&c, "ok critical");
		}
		if (way == 3)
			say(&c, "thaw");
		if (way != 2) {
			expect(&c, "fs 0 thaw 0 ");
			expect(&c, "event thawed expired");
			if (way != 3)
				say(&c, "thaw");
			expect(&c, "error expired ");
			hang_up(&c);
		}
		WITHIN(1000, !script_frozen(0));
		WITHIN(1000, access(marker_path, F_OK) < 0);
		nap(20);
	}
	plan(&c, 1, 10000);
	say(&c, "freeze 5000");
	expect(&c, "fs 0 freeze 0 ");
	expect(&c, "ok freeze 1 ");
	say(&c, "critical on 20000");
	expect(&c, "ok critical");
	say(&c, "critical off");
	expect(&c, "ok critical");
	CHECK(marked_section() == 0);
	say(&c, "thaw");
	expect(&c, "fs 0 thaw 0 ");
	expect(&c, "ok thaw");
	CHECK(access(marker_path, F_OK) < 0);
	hang_up(&c);
	finish();
}

static void budgets(void)
{
	struct client c;
	uint64_t before = clock_now();

	start(1, marker_path);
	dial(&c);
	say(&c, "plan s o 1000 200 0");
	expect(&c, "ok plan");
	expect_end(&c);
	CHECK(clock_now() - before > 190000000u && clock_now() - before < 1000000000u);
	hang_up(&c);
	dial(&c);
	say(&c, "plan s o 0 1 0");
	expect(&c, "error limit ");
	say(&c, "plan s o 3600001 1 0");
	expect(&c, "error limit ");
	say(&c, "plan s o 1000 10000 0");
	expect(&c, "ok plan");
	say(&c, "freeze 10");
	expect(&c, "error state ");
	say(&c, "fs 0 1 0:0 %s", script_path(0));
	expect(&c, "ok fs 0");
	say(&c, "fs 1 1 0:0 %s", script_path(0));
	expect(&c, "error fs 17 ");
	say(&c, "fs 1 1 0:0 /nowhere");
	expect(&c, "error fs 2 ");
	say(&c, "freeze 1001");
	expect(&c, "error limit ");
	hang_up(&c);
	finish();
}

static void no_marker_no_freeze(void)
{
	char nowhere[300];
	struct client c;

	snprintf(nowhere, sizeof nowhere, "%s/missing/frozen", scratch);
	start(1, nowhere);
	plan(&c, 1, 10000);
	say(&c, "freeze 1000");
	expect(&c, "fs 0 freeze 2 0 0");
	expect(&c, "ok freeze 0 ");
	say(&c, "thaw");
	expect(&c, "fs 0 thaw 0 0 0 0");
	expect(&c, "ok thaw");
	CHECK(script_calls(0, SCRIPT_FREEZE) == 0);
	hang_up(&c);
	finish();
}

/* What the one before left on a disk that does not answer stays marked, whatever sessions come and go. */
static void sessions_over_leftovers(void)
{
	char aside[300];
	struct client c;
	FILE *file = fopen(marker_path, "w");
	int fd;

	script_reset(3);
	fd = open_mount_point(script_path(1));
	CHECK(file != NULL && scripted_calls.freeze(fd) == 0);
	fprintf(file, "fsfreeze-bridge 1 4194303 1 before -\nfrozen %llu 0:0 %s\n", (unsigned long long)mount_id_of(fd),
		script_path(1));
	CHECK(fclose(file) == 0);
	close(fd);
	script_hold(1, SCRIPT_THAW);
	start_over(marker_path);
	snprintf(aside, sizeof aside, "%s.left-4194303-1", marker_path);
	for (int times = 0; times < 2; times++) {
		plan(&c, 1, 10000);
		say(&c, "fs 0 1 0:0 %s", script_path(1));
		expect(&c, "error fs 16 ");
		say(&c, "freeze 5000");
		expect(&c, "fs 0 freeze 0 ");
		expect(&c, "ok freeze 1 ");
		CHECK(access(marker_path, F_OK) == 0 && access(aside, F_OK) == 0);
		say(&c, "thaw");
		expect(&c, "fs 0 thaw 0 ");
		expect(&c, "ok thaw");
		CHECK(access(marker_path, F_OK) < 0 && access(aside, F_OK) == 0 && script_frozen(1));
		hang_up(&c);
		nap(20);
	}
	script_let_go(1, SCRIPT_THAW);
	WITHIN(1000, !script_frozen(1) && access(aside, F_OK) < 0);
	plan(&c, 2, 10000); /* and it is one like the others again */
	hang_up(&c);
	finish();
}

static void write_knob(const char *text)
{
	FILE *file = fopen(knob, "w");

	CHECK(file != NULL && fputs(text, file) >= 0 && fclose(file) == 0);
}

static char read_knob(void)
{
	char line[8] = "";

	CHECK(read_line(knob, line, sizeof line));
	return line[0];
}

static void rcu_is_hurried_and_put_back(void)
{
	struct client c;

	if (rcu_left_alone(knob, "/sys/devices/system/cpu") != NULL) {
		passed("(RCU: left alone on this machine, not tested)");
		return;
	}
	write_knob("0\n");
	start(1, marker_path);
	script_watch(knob);
	plan(&c, 1, 10000);
	say(&c, "freeze 1000");
	expect(&c, "fs 0 freeze 0 ");
	expect(&c, "ok freeze 1 ");
	CHECK(script_seen() == '1');
	WITHIN(1000, read_knob() == '0'); /* after the answer: the holder does not wait for it */
	say(&c, "thaw");
	expect(&c, "fs 0 ");
	expect(&c, "ok thaw");
	hang_up(&c);

	plan(&c, 1, 10000);
	script_hold(0, SCRIPT_FREEZE);
	say(&c, "freeze 200");
	WITHIN(1000, script_calls(0, SCRIPT_FREEZE) == 2);
	CHECK(read_knob() == '1');
	expect(&c, "error expired ");
	WITHIN(1000, read_knob() == '0'); /* while FIFREEZE has still not returned */
	script_let_go(0, SCRIPT_FREEZE);
	hang_up(&c);
	finish();
}

static void many(void)
{
	enum { MANY = 1000 };
	struct client c, others[8];

	start(MANY, marker_path);
	plan(&c, MANY, 60000);
	say(&c, "freeze 60000");
	WITHIN(60000, script_frozen(MANY - 1));
	nap(300); /* does not read for a while */
	for (int i = 0; i < MANY; i++)
		expect(&c, "fs ");
	expect(&c, "ok freeze 1000 ");
	for (int i = 0; i < 7; i++) {
		dial(&others[i]);
		say(&others[i], "status");
		expect(&others[i], "ok status frozen ");
	}
	dial(&others[7]);
	expect(&others[7], "error limit ");
	expect_end(&others[7]);
	say(&c, "thaw");
	for (int i = 0; i < MANY; i++)
		expect(&c, "fs ");
	expect(&c, "ok thaw");
	for (int i = 0; i < 8; i++)
		hang_up(&others[i]);
	hang_up(&c);
	finish();
}

static void who_does_not_read_loses_its_session(void)
{
	struct client c;
	static char flood[7 * 1000];

	start(1, marker_path);
	plan(&c, 1, 60000);
	say(&c, "freeze 60000");
	expect(&c, "fs 0 freeze 0 ");
	expect(&c, "ok freeze 1 ");
	for (size_t i = 0; i < sizeof flood; i++)
		flood[i] = "status\n"[i % 7];
	for (int i = 0; i < 300 && script_frozen(0); i++)
		if (send(c.fd, flood, sizeof flood, MSG_NOSIGNAL) < 0)
			break;
	WITHIN(2000, !script_frozen(0));
	hang_up(&c);
	finish();
}

static void stops_when_all_is_thawed(void)
{
	struct client c;

	start(1, marker_path);
	plan(&c, 1, 60000);
	say(&c, "freeze 60000");
	expect(&c, "fs 0 freeze 0 ");
	expect(&c, "ok freeze 1 ");
	ask_to_stop();
	nap(100);
	say(&c, "status");
	expect(&c, "ok status frozen ");
	say(&c, "thaw");
	expect(&c, "fs 0 thaw 0 ");
	expect(&c, "ok thaw");
	expect_end(&c);
	hang_up(&c);
	finish();
}

static void garbage(void)
{
	struct client c;

	start(1, marker_path);
	plan(&c, 1, 60000);
	say(&c, "freeze 60000");
	expect(&c, "fs 0 freeze 0 ");
	expect(&c, "ok freeze 1 ");
	for (int i = 0; i < 16; i++) {
		say(&c, "\001");
		expect(&c, "error syntax ");
	}
	expect_end(&c);
	WITHIN(1000, !script_frozen(0));
	hang_up(&c);
	finish();
}

void test_sessions(void)
{
	static const struct {
		const char *name;
		void (*run)(void);
	} tests[] = {
		{ "freezes and thaws", freezes_and_thaws },
		{ "requests wait their turn", requests_wait_their_turn },
		{ "a failing freeze is not thawed", a_failing_freeze_is_not_thawed },
		{ "a foreign thaw is told", a_foreign_thaw_is_told },
		{ "thaw during freeze", thaw_during_freeze },
		{ "expiry during freeze", expiry_during_freeze },
		{ "expiry while frozen", expiry_while_frozen },
		{ "a thaw that does not return", a_thaw_that_does_not_return },
		{ "a late sync is left running", a_late_sync_is_left_running },
		{ "a lost write is told", a_lost_write_is_told },
		{ "thaw during sync", thaw_during_sync },
		{ "groups", groups },
		{ "a hung freeze is given up", a_hung_freeze_is_given_up },
		{ "given up, and not let go", given_up_and_not_let_go },
		{ "a hung thaw is given up", a_hung_thaw_is_given_up },
		{ "a thaw that returns while it is marked", a_thaw_that_returns_while_it_is_marked },
		{ "given up without a place to mark it", given_up_without_a_place_to_mark_it },
		{ "what hangs before the freeze", what_hangs_before_the_freeze },
		{ "a refusal is marked before it is told", a_refusal_is_marked_before_it_is_told },
		{ "closing in each state", closing_in_each_state },
		{ "critical sections", critical_sections },
		{ "budgets", budgets },
		{ "no marker, no freeze", no_marker_no_freeze },
		{ "sessions over leftovers", sessions_over_leftovers },
		{ "RCU is hurried and put back", rcu_is_hurried_and_put_back },
		{ "1000 filesystems, 8 connections", many },
		{ "who does not read loses its session", who_does_not_read_loses_its_session },
		{ "stops when all is thawed", stops_when_all_is_thawed },
		{ "garbage", garbage },
	};

	snprintf(socket_path, sizeof socket_path, "%s/freezer.sock", scratch);
	snprintf(marker_path, sizeof marker_path, "%s/session-frozen", scratch);
	snprintf(knob, sizeof knob, "%s/rcu_expedited", scratch);
	for (size_t i = 0; i < sizeof tests / sizeof *tests; i++) {
		tests[i].run();
		passed(tests[i].name);
	}
}
