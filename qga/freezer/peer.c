/* See peer.h. */
#define _GNU_SOURCE
#include "peer.h"
#include "process.h"
#include "socket-file.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* The pid that answers `hello` on SOCKET, or is too busy to; not positive: no answer. FROM is who listens there. */
static pid_t ask_pid(int socket, int wait_ms, pid_t from)
{
	struct pollfd answer = { .fd = socket, .events = POLLIN };
	char line[128];
	ssize_t got;
	int pid = 0;

	/* One that is full says so and closes, maybe before we have spoken: what it said can be read all the same. */
	(void)send(socket, "hello\n", 6, MSG_NOSIGNAL);
	if (poll(&answer, 1, wait_ms) != 1)
		return 0;
	got = recv(socket, line, sizeof line - 1, MSG_DONTWAIT);
	line[got > 0 ? got : 0] = '\0';
	if (sscanf(line, "ok hello 1 %d ", &pid) == 1)
		return pid;
	return strncmp(line, "error limit", 11) == 0 ? from : 0; /* full, but alive */
}

enum peer peer_ask(const char *path, int wait_ms, pid_t *pid)
{
	struct sockaddr_un address;
	struct ucred peer;
	socklen_t size = sizeof peer;
	pid_t answered;
	int fd;

	*pid = 0;
	if (socket_address(path, &address) < 0)
		return PEER_NOBODY;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return PEER_NOBODY;
	if (connect(fd, (struct sockaddr *)&address, sizeof address) < 0) {
		/* EAGAIN: its queue is full, so it does not take connections. */
		bool full = errno == EAGAIN;

		close(fd);
		return full ? PEER_SILENT : PEER_NOBODY;
	}
	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0)
		*pid = peer.pid;
	/* A killed one whose thread is inside FIFREEZE keeps its socket open, and serves nobody. */
	if (*pid > 0 && process_is_ending(*pid)) {
		close(fd);
		return PEER_NOBODY;
	}
	answered = ask_pid(fd, wait_ms, *pid);
	close(fd);
	if (answered > 0) {
		*pid = answered;
		return PEER_ANSWERS;
	}
	return *pid > 0 && process_is_ending(*pid) ? PEER_NOBODY : PEER_SILENT;
}

bool peer_may_connect(int socket)
{
	struct ucred peer;
	socklen_t size = sizeof peer;

	return getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 &&
	       (peer.uid == 0 || peer.uid == geteuid());
}
