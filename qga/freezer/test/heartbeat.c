/* The agent's heartbeat, with a service manager that is a socket. */
#define _GNU_SOURCE
#include "../heartbeat.h"
#include "check.h"

#include <fcntl.h>
#include <poll.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PERIOD_MS = 50, HOLD_MS = 400, QUIET_MS = 300, LONG_MS = 5000 };

static int manager, agent;
static pid_t child;

static void start(void)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int pipes[2];

	snprintf(address.sun_path, sizeof address.sun_path, "%s/notify", scratch);
	unlink(address.sun_path);
	manager = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	CHECK(manager >= 0 && bind(manager, (struct sockaddr *)&address, sizeof address) == 0);
	CHECK(pipe2(pipes, O_CLOEXEC) == 0);
	child = fork();
	CHECK(child >= 0);
	if (child == 0) {
		close(pipes[1]);
		setenv("NOTIFY_SOCKET", address.sun_path, 1);
		heartbeat(pipes[0], PERIOD_MS, HOLD_MS);
		_exit(0);
	}
	close(pipes[0]);
	agent = pipes[1];
}

static bool heard(int within_ms)
{
	struct pollfd input = { .fd = manager, .events = POLLIN };
	char line[32] = "";

	if (poll(&input, 1, within_ms) != 1)
		return false;
	CHECK(recv(manager, line, sizeof line - 1, 0) == 10 && strcmp(line, "WATCHDOG=1") == 0);
	return true;
}

static void say(char letter)
{
	CHECK(write(agent, &letter, 1) == 1);
}

static void end(void)
{
	int status;

	close(agent);
	CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
	close(manager);
}

void test_heartbeats(void)
{
	start();
	say(HEARTBEAT_ALIVE);
	CHECK(heard(LONG_MS));
	CHECK(!heard(QUIET_MS));
	end();
	passed("heartbeat: one word for each letter, none for a loop that stands still, the end with the agent");

	start();
	say(HEARTBEAT_HOLDS);
	for (int word = 0; word < 4; word++)
		CHECK(heard(LONG_MS));
	say(HEARTBEAT_RELEASED);
	while (heard(PERIOD_MS))
		;
	CHECK(!heard(QUIET_MS));
	end();
	passed("heartbeat: while the guest is held it goes on by itself, and no longer");

	start();
	say(HEARTBEAT_HOLDS);
	while (heard(QUIET_MS))
		;
	CHECK(!heard(QUIET_MS));
	end();
	passed("heartbeat: a hold that never ends is believed for its limit");
}
