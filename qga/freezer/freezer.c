/*
 * The freezer: the small trusted program that alone freezes and thaws
 * filesystems. This file is the command line, the start and what makes it
 * resident; the protocol is in README.md, the rules in session.c and worker.c.
 */
#define _GNU_SOURCE
#include "heartbeat.h"
#include "leftovers.h"
#include "server.h"
#include "system.h"
#include "thaw-marked.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <libgen.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#ifndef PR_SET_IO_FLUSHER
#define PR_SET_IO_FLUSHER 57
#endif
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

static void fail(const char *what, const char *why)
{
	fprintf(stderr, "freezer: %s: %s\n", what, why);
}

/* ---- start ---- */

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
static bool marked_one_is_ending(void)
{
	static struct marker marker;
	char problem[PATH_MAX_BYTES + 256];
	bool ending = marker_read(options.marker, &marker, problem, sizeof problem) == 1 &&
		      process_start_time(marker.pid) == marker.start_time && process_is_ending(marker.pid);

	marker_free(&marker);
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
		if (pid < 0 && silent == 0 && marked_one_is_ending())
			pid = 0;
	}
	if (pid > 0)
		fprintf(stderr, "freezer: already running, pid %d\n", (int)pid);
	else if (pid < 0)
		fprintf(stderr, "freezer: already running, pid %d, which does not answer: end it first\n", (int)silent);
	return pid == 0 ? OK : RUNNING;
}

/* ---- resident ---- */

/* Never swapped out, never chosen by the OOM killer: what thaws must run when nothing else does. */
static bool become_resident(void)
{
	int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);

	if (fd >= 0) {
		/* Not permitted in some containers; then it is as mortal as the rest. */
		if (write(fd, "-1000", 5) < 0)
			fail("oom_score_adj", strerror(errno));
		close(fd);
	}
	/*
	 * What the kernel allocates for us (a page of the marker, a socket buffer) must not wait for a filesystem
	 * that we froze to take dirty pages. Threads inherit it. Linux 5.6; a help, not a condition.
	 */
	prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0);
	/* Applications wait for it: it goes first. It computes nothing; its threads inherit this. A help, too. */
	setpriority(PRIO_PROCESS, 0, -20);
	if (mlockall(MCL_CURRENT | MCL_FUTURE) < 0 && !options.any_fs) {
		fail("mlockall", strerror(errno));
		return false;
	}
	return true;
}

/* A signalfd of the signals that end it. */
static int arrange_signals(void)
{
	sigset_t stop;

	signal(SIGPIPE, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
	signal(SIGCHLD, SIG_IGN);
	sigemptyset(&stop);
	sigaddset(&stop, SIGTERM);
	sigaddset(&stop, SIGINT);
	sigprocmask(SIG_BLOCK, &stop, NULL);
	return signalfd(-1, &stop, SFD_CLOEXEC | SFD_NONBLOCK);
}

/* READY=1 to the service manager, if it asked for it. */
static void notify_ready(void)
{
	const char *path = getenv("NOTIFY_SOCKET");
	struct sockaddr_un to = { .sun_family = AF_UNIX };
	size_t length = path == NULL ? 0 : strlen(path);
	int fd;

	if (length == 0 || length >= sizeof to.sun_path)
		return;
	memcpy(to.sun_path, path, length);
	if (path[0] == '@')
		to.sun_path[0] = '\0';
	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || sendto(fd, "READY=1", 7, MSG_NOSIGNAL, (struct sockaddr *)&to,
			     (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length)) < 0)
		fail("NOTIFY_SOCKET", strerror(errno));
	if (fd >= 0)
		close(fd);
}

/*
 * The first process stays until the second one serves or has failed, and ends
 * with its exit status. Returns the pipe to tell it by.
 */
static int go_into_background(void)
{
	int pipes[2];
	unsigned char status = FAILED;
	pid_t child;

	if (pipe2(pipes, O_CLOEXEC) < 0 || (child = fork()) < 0) {
		fail("fork", strerror(errno));
		exit(FAILED);
	}
	if (child > 0) {
		close(pipes[1]);
		if (read(pipes[0], &status, 1) != 1)
			status = FAILED;
		_exit(status);
	}
	close(pipes[0]);
	setsid();
	return pipes[1];
}

static void tell(int parent, unsigned char status)
{
	if (parent >= 0 && write(parent, &status, 1) == 1)
		close(parent);
}

/* Nothing is written to a terminal, a log or a pipe from here on: it could block, or lie on a frozen filesystem. */
static void drop_stdio(void)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	for (int fd = 0; null >= 0 && fd < 3; fd++)
		dup2(null, fd);
	if (null > 2)
		close(null);
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

	if (marker_folder < 0 || folder < 0 || !lock_start(folder))
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
	if (!become_resident() || session_init(&setup) != 0)
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
	heartbeat(STDIN_FILENO, watchdog_us < 3000 ? 10000 : (unsigned)(watchdog_us / 3000), options.heartbeat_s * 1000);
}

int main(int count, char **words)
{
	int parent = -1, result;

	parse_options(count, words);
	syscall(SYS_close_range, 3u, ~0u, 0u);
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
