/*
 * The freezer's command line, and its start in this order: folder, predecessor, leftovers, memory, socket. What it does
 * then is server.c; the protocol, and a list of the files, are in README.md.
 */
#define _GNU_SOURCE
#include "heartbeat.h"
#include "leftovers.h"
#include "predecessor.h"
#include "resident.h"
#include "runtime-folder.h"
#include "server.h"
#include "session.h"
#include "socket-file.h"
#include "system.h"
#include "thaw-marked.h"

#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/utsname.h>
#include <unistd.h>

#ifndef VERSION
#define VERSION "unknown"
#endif

enum { OK = 0, FAILED = 1, USAGE = 2, RUNNING = 3 };
enum { BOUND_MS = 10 * 1000 };

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

static struct thaw_job thaw_job(void)
{
	return (struct thaw_job){ options.marker, options.socket, options.rcu_knob, &real_calls, BOUND_MS };
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
	int marker_folder = runtime_folder_open(options.marker, options.any_fs);
	int folder = runtime_folder_open(options.socket, options.any_fs);
	int stop, wake, listening = -1, result;
	struct thaw_job job = thaw_job();
	struct session_setup setup = {
		.calls = &real_calls,
		.marker = options.marker,
		.rcu_knob = options.rcu_knob,
		.kill_holders = !options.no_kill,
	};

	if (!kernel_is_known() || marker_folder < 0 || folder < 0 || !runtime_folder_lock(folder))
		return FAILED;
	close(marker_folder);
	stop = arrange_signals();
	wake = setup.wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (stop < 0 || wake < 0) {
		fail("start", strerror(errno));
		return FAILED;
	}
	if (!predecessor_is_gone(&job))
		return RUNNING;
	result = leftovers_take(options.marker, &real_calls, wake);
	if (result != 0) {
		fail(options.marker, strerror(result));
		return FAILED;
	}
	if (!become_resident(!options.any_fs) || session_init(&setup) != 0)
		return FAILED;
	listening = socket_listen(options.socket);
	if (listening < 0) {
		fail(options.socket, strerror(errno));
		return FAILED;
	}
	flock(folder, LOCK_UN); /* not by close() alone: a child of thaw_marker() may still share the descriptor */
	close(folder);
	notify_ready();
	drop_stdio();
	tell(parent, OK);
	server_run(listening, stop, wake);
	unlink(options.socket);
	return OK;
}

/* --heartbeat: three words within the time after which the service manager gives the agent up. */
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
		struct thaw_job job = thaw_job();

		return thaw_marked(&job);
	}
	if (!options.foreground && getenv("NOTIFY_SOCKET") == NULL)
		parent = go_into_background();
	result = serve(parent);
	tell(parent, (unsigned char)result);
	return result;
}
