/*
 * The freezer: the small trusted program that alone freezes and thaws
 * filesystems. This file is the command line, the start and what makes it
 * resident; the protocol is in README.md, the rules in session.c and worker.c.
 */
#define _GNU_SOURCE
#include "heartbeat.h"
#include "leftovers.h"
#include "process.h"
#include "resident.h"
#include "server.h"
#include "system.h"
#include "thaw-marked.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <libgen.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#ifndef VERSION
#define VERSION "unknown"
#endif

enum { OK = 0, FAILED = 1, USAGE = 2, RUNNING = 3 };
enum { BOUND_MS = 10 * 1000, START_LOCK_MS = 15 * 1000, HELLO_MS = 1000 };

static struct {
	const char *socket, *marker, *rcu_knob;
	bool foreground, thaw_marked, no_kill, any_fs;
	unsigned heartbeat_s;
} options = {
	.socket = "/run/fsfreeze-bridge/freezer.sock",
	.marker = "/run/fsfreeze-bridge/frozen",
	.rcu_knob = "/sys/kernel/rcu_expedited",
};

static const char help[] =
	"usage: freezer [--foreground] [--socket PATH] [--marker PATH] [--rcu-knob PATH] [--no-kill]\n"
	"       freezer --thaw-marked [--socket PATH] [--marker PATH] [--rcu-knob PATH]\n"
	"       freezer --heartbeat SECONDS\n"
	"\n"
	"Freezes and thaws filesystems for the agent, and thaws them by itself when the\n"
	"lease ends or the agent goes away. Without --foreground it goes into the\n"
	"background once it serves. --thaw-marked thaws what a freezer that died left\n"
	"frozen. --heartbeat, a child of the agent, is its word to the service manager's\n"
	"watchdog: for each letter on standard input (see heartbeat.h), and by itself for\n"
	"at most SECONDS while the guest is held.\n"
	"\n"
	"  --socket PATH    default /run/fsfreeze-bridge/freezer.sock\n"
	"  --marker PATH    default /run/fsfreeze-bridge/frozen; both must be on tmpfs\n"
	"  --rcu-knob PATH  default /sys/kernel/rcu_expedited\n"
	"  --no-kill        a holder that does not let go loses its connection, not its life\n"
	"  --allow-any-fs   socket and marker need not be on tmpfs, memory need not be\n"
	"                   locked: for tests alone, it can lock up a machine\n"
	"\n"
	"exit status: 0 done, 1 failed or something is not thawed, 2 usage, 3 already running\n";

static unsigned seconds(const char *text)
{
	char *end;
	unsigned long value = strtoul(text, &end, 10);

	if (*end == '\0' && value > 0 && value <= 86400)
		return (unsigned)value;
	fprintf(stderr, "freezer: expected 1 to 86400 seconds, found %s\n", text);
	exit(USAGE);
}

static void parse_options(int count, char **words)
{
	enum { SOCKET = 256, MARKER, KNOB, FOREGROUND, MARKED, HEARTBEAT, NO_KILL, ANY_FS, SHOW_VERSION, HELP };
	static const struct option known[] = {
		{ "socket", required_argument, NULL, SOCKET },
		{ "marker", required_argument, NULL, MARKER },
		{ "rcu-knob", required_argument, NULL, KNOB },
		{ "foreground", no_argument, NULL, FOREGROUND },
		{ "thaw-marked", no_argument, NULL, MARKED },
		{ "heartbeat", required_argument, NULL, HEARTBEAT },
		{ "no-kill", no_argument, NULL, NO_KILL },
		{ "allow-any-fs", no_argument, NULL, ANY_FS },
		{ "version", no_argument, NULL, SHOW_VERSION },
		{ "help", no_argument, NULL, HELP },
		{ 0 },
	};
	int option;

	while ((option = getopt_long(count, words, "", known, NULL)) != -1) {
		switch (option) {
		case SOCKET: options.socket = optarg; break;
		case MARKER: options.marker = optarg; break;
		case KNOB: options.rcu_knob = optarg; break;
		case FOREGROUND: options.foreground = true; break;
		case MARKED: options.thaw_marked = true; break;
		case HEARTBEAT: options.heartbeat_s = seconds(optarg); break;
		case NO_KILL: options.no_kill = true; break;
		case ANY_FS: options.any_fs = true; break;
		case SHOW_VERSION: puts("freezer " VERSION); exit(OK);
		case HELP: fputs(help, stdout); exit(OK);
		default: fputs(help, stderr); exit(USAGE);
		}
	}
	if (optind < count) {
		fprintf(stderr, "freezer: unexpected argument: %s\n%s", words[optind], help);
		exit(USAGE);
	}
	if (options.socket[0] != '/' || options.marker[0] != '/' || options.rcu_knob[0] != '/') {
		fprintf(stderr, "freezer: expected absolute paths\n");
		exit(USAGE);
	}
}

/* What others may write to they may put names into: a socket or marker of theirs in place of ours. */
static bool only_ours(int fd)
{
	struct stat status;

	return fstat(fd, &status) == 0 && (status.st_uid == 0 || status.st_uid == geteuid()) &&
	       (status.st_mode & (S_IWGRP | S_IWOTH)) == 0;
}

/* The folder of PATH, made if it is missing; it must be in memory, and ours. -1 after saying why. */
static int open_folder(const char *path)
{
	char copy[PATH_MAX_BYTES + 1], *folder;
	int fd;

	if (strlen(path) >= sizeof copy) {
		fail("path", strerror(ENAMETOOLONG));
		return -1;
	}
	folder = dirname(strcpy(copy, path));
	if (mkdir(folder, 0755) < 0 && errno != EEXIST) {
		fail(folder, strerror(errno));
		return -1;
	}
	fd = open_mount_point(folder);
	if (fd < 0) {
		fail(folder, strerror(errno));
	} else if (!in_memory(fd) && !options.any_fs) {
		fail(folder, "expected tmpfs or ramfs, found another filesystem: it could be frozen");
		close(fd);
		fd = -1;
	} else if (!only_ours(fd) && !options.any_fs) {
		fail(folder, "expected a folder that belongs to root and that nobody else may write to");
		close(fd);
		fd = -1;
	}
	return fd;
}

/* Keeps two that start at once apart; only for the start, so that a freezer stuck in the kernel blocks no successor. */
static bool lock_start(int folder)
{
	for (int waited = 0; flock(folder, LOCK_EX | LOCK_NB) < 0; waited += 100) {
		if (waited >= START_LOCK_MS) {
			fail("start", "another freezer has been starting for 15 s");
			return false;
		}
		nanosleep(&(struct timespec){ .tv_nsec = 100 * 1000000 }, NULL);
	}
	return true;
}

static struct leftovers leftovers(void)
{
	return (struct leftovers){ options.marker, options.socket, options.rcu_knob, &real_calls, BOUND_MS };
}

/*
 * Killed inside a FIFREEZE that does not return, it still listens, and accepts nothing: whoever looked for it has
 * filled its queue, and who it is can then not be asked of the socket.
 */
static void look_if_ending(const char *path, void *ending)
{
	static struct marker marker;
	char problem[PATH_MAX_BYTES + 256];

	if (marker_read(path, &marker, problem, sizeof problem) == 1 &&
	    process_start_time(marker.pid) == marker.start_time && process_is_ending(marker.pid))
		*(bool *)ending = true;
	marker_free(&marker);
}

static bool marked_one_is_ending(void)
{
	bool ending = false;

	look_if_ending(options.marker, &ending);
	markers_set_aside(options.marker, look_if_ending, &ending);
	return ending;
}

/* Sees to a predecessor: OK, or RUNNING after saying so. */
static int succeed(void)
{
	struct leftovers left = leftovers();
	pid_t silent, pid = server_ask(options.socket, HELLO_MS, &silent);

	if (pid <= 0 && access(options.marker, F_OK) == 0) {
		if (thaw_marker(&left) != 0)
			fail(options.marker, "not all that was marked is thawed; starting, and going on with it");
		pid = server_ask(options.socket, HELLO_MS, &silent);
	}
	if (pid < 0 && silent == 0 && marked_one_is_ending())
		pid = 0;
	if (pid > 0)
		fprintf(stderr, "freezer: already running, pid %d\n", (int)pid);
	else if (pid < 0)
		fprintf(stderr, "freezer: already running, pid %d, which does not answer: end it first\n", (int)silent);
	return pid == 0 ? OK : RUNNING;
}

static bool kernel_is_known(void)
{
	struct utsname name;
	const char *problem = uname(&name) < 0 ? NULL : kernel_too_old(name.release);

	if (problem != NULL)
		fail("kernel", problem);
	return problem == NULL;
}

static int serve(int parent)
{
	int marker_folder = open_folder(options.marker), folder = open_folder(options.socket);
	int stop, wake, listening = -1, result;
	struct session_setup setup = {
		.calls = &real_calls,
		.marker = options.marker,
		.rcu_knob = options.rcu_knob,
		.kill_holders = !options.no_kill,
	};

	if (!kernel_is_known() || marker_folder < 0 || folder < 0 || !lock_start(folder))
		return FAILED;
	close(marker_folder);
	stop = arrange_signals();
	wake = setup.wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (stop < 0 || wake < 0) {
		fail("start", strerror(errno));
		return FAILED;
	}
	result = succeed();
	if (result != OK)
		return result;
	result = leftovers_take(options.marker, &real_calls, wake);
	if (result != 0) {
		fail(options.marker, strerror(result));
		return FAILED;
	}
	if (!become_resident(!options.any_fs) || session_init(&setup) != 0)
		return FAILED;
	listening = server_listen(options.socket);
	if (listening < 0) {
		fail(options.socket, strerror(errno));
		return FAILED;
	}
	flock(folder, LOCK_UN); /* by hand: a child of thaw_marked() may still share the descriptor */
	close(folder);
	notify_ready();
	drop_stdio();
	tell(parent, OK);
	server_run(listening, stop, wake);
	unlink(options.socket);
	return OK;
}

/* Three words within the time after which the service manager gives the agent up. */
static void keep_time(void)
{
	const char *text = getenv("WATCHDOG_USEC");
	unsigned long long watchdog_us = text == NULL ? 0 : strtoull(text, NULL, 10);

	prctl(PR_SET_NAME, "agent-heartbeat");
	signal(SIGPIPE, SIG_IGN);
	heartbeat(STDIN_FILENO, watchdog_us < 3000 ? 10000 : (unsigned)(watchdog_us / 3000),
		  options.heartbeat_s * 1000);
}

int main(int count, char **words)
{
	int parent = -1, result;

	parse_options(count, words);
	close_inherited();
	if (chdir("/") < 0)
		fail("/", strerror(errno));
	if (options.heartbeat_s > 0) {
		keep_time();
		return OK;
	}
	if (options.thaw_marked) {
		struct leftovers left = leftovers();

		return thaw_marked(&left);
	}
	if (!options.foreground && getenv("NOTIFY_SOCKET") == NULL)
		parent = go_into_background();
	result = serve(parent);
	tell(parent, (unsigned char)result);
	return result;
}
