/* See server.h: the socket's file, and who answers on it. */
#define _GNU_SOURCE
#include "server.h"
#include "process.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

static int address_of(const char *path, struct sockaddr_un *out)
{
	memset(out, 0, sizeof *out);
	out->sun_family = AF_UNIX;
	if (strlen(path) >= sizeof out->sun_path) {
		errno = ENAMETOOLONG;
		return -1;
	}
	strcpy(out->sun_path, path);
	return 0;
}

int server_listen(const char *path)
{
	char beside[sizeof((struct sockaddr_un *)NULL)->sun_path];
	struct sockaddr_un address;
	int fd, error;
	mode_t before;

	/* Made beside it and moved there when it listens: nobody ever finds one that does not. */
	if (snprintf(beside, sizeof beside, "%s.new", path) >= (int)sizeof beside) {
		errno = ENAMETOOLONG;
		return -1;
	}
	if (address_of(beside, &address) < 0 || (unlink(beside) < 0 && errno != ENOENT))
		return -1;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -1;
	before = umask(0177);
	error = bind(fd, (struct sockaddr *)&address, sizeof address) < 0 ? errno : 0;
	umask(before);
	/* Far more than it serves: one that was killed inside a FIFREEZE still listens, and must not seem to be busy. */
	if (error == 0 && (listen(fd, SOMAXCONN) < 0 || rename(beside, path) < 0))
		error = errno;
	if (error != 0) {
		close(fd);
		errno = error;
		return -1;
	}
	return fd;
}

pid_t server_ask(const char *path, int wait_ms, pid_t *silent)
{
	struct sockaddr_un address;
	struct ucred peer;
	socklen_t size = sizeof peer;
	struct pollfd answer = { .events = POLLIN };
	int fd, pid = 0;
	char line[128];
	ssize_t got;

	*silent = 0;
	if (address_of(path, &address) < 0)
		return 0;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return 0;
	if (connect(fd, (struct sockaddr *)&address, sizeof address) < 0) {
		/* EAGAIN: its queue is full, so it does not take connections. */
		pid = errno == EAGAIN ? -1 : 0;
		close(fd);
		return pid;
	}
	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0)
		*silent = peer.pid;
	/* A killed one whose thread is inside FIFREEZE keeps its socket open, and serves nobody. */
	if (*silent > 0 && process_is_ending(*silent)) {
		close(fd);
		return 0;
	}
	answer.fd = fd;
	/* One that is full says so and closes, maybe before we have spoken: what it said can be read all the same. */
	(void)send(fd, "hello\n", 6, MSG_NOSIGNAL);
	if (poll(&answer, 1, wait_ms) == 1) {
		got = recv(fd, line, sizeof line - 1, MSG_DONTWAIT);
		line[got > 0 ? got : 0] = '\0';
		if (sscanf(line, "ok hello 1 %d ", &pid) != 1)
			pid = strncmp(line, "error limit", 11) == 0 ? *silent : 0; /* full, but alive */
	}
	close(fd);
	if (pid > 0)
		return pid;
	return *silent > 0 && process_is_ending(*silent) ? 0 : -1;
}
