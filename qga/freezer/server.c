/* See server.h. */
#define _GNU_SOURCE
#include "server.h"
#include "leftovers.h"
#include "system.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { CONNECTIONS_MAX = 8, SYNTAX_ERRORS_MAX = 16, OUT_BYTES = 4096, SEND_BUFFER = 1 << 20, LINES_BYTES = 256 };

struct connection {
	int fd; /* -1: free */
	bool broken;
	unsigned syntax_errors;
	size_t in_used, out_used;
	char in[LINE_MAX_BYTES];
	char out[OUT_BYTES];
};

static struct connection connections[CONNECTIONS_MAX];

/* ---- out ---- */

/*
 * The socket's own buffer is the queue (1 MiB: all lines of 4096 filesystems).
 * Whoever lets it fill up does not read, and loses the connection.
 */
static void flush(struct connection *to)
{
	size_t length = to->out_used;

	to->out_used = 0;
	if (length == 0)
		return;
	if (send(to->fd, to->out, length, MSG_DONTWAIT | MSG_NOSIGNAL) != (ssize_t)length)
		to->broken = true;
}

void connection_say(struct connection *to, const char *format, ...)
{
	char line[OUT_BYTES];
	va_list arguments;
	int length;

	if (to == NULL)
		return;
	va_start(arguments, format);
	length = vsnprintf(line, sizeof line - 1, format, arguments);
	va_end(arguments);
	if (length >= (int)sizeof line - 1)
		length = sizeof line - 2;
	line[length++] = '\n';
	if (to->out_used + (size_t)length > sizeof to->out)
		flush(to);
	memcpy(to->out + to->out_used, line, (size_t)length);
	to->out_used += (size_t)length;
}

void connection_flush(struct connection *to)
{
	if (to != NULL)
		flush(to);
}

int connection_socket(const struct connection *connection)
{
	return connection->fd;
}

static void set_queue(int fd, int bytes)
{
	if (setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &bytes, sizeof bytes) < 0)
		setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof bytes);
}

void connection_expect(struct connection *to, size_t filesystems)
{
	size_t bytes = filesystems * LINES_BYTES;

	if (to != NULL && bytes > SEND_BUFFER && bytes <= INT_MAX / 2 && (filesystems & (filesystems - 1)) == 0)
		set_queue(to->fd, 2 * (int)bytes);
}

void connection_drop(struct connection *connection)
{
	if (connection == NULL || connection->fd < 0)
		return;
	flush(connection);
	close(connection->fd);
	connection->fd = -1;
}

/* ---- in ---- */

static bool may_connect(int fd)
{
	struct ucred peer;
	socklen_t size = sizeof peer;

	return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 && (peer.uid == 0 || peer.uid == geteuid());
}

static void take_connection(int listening)
{
	static const char full[] = "error limit at\\040most\\0408\\040connections\n";
	static const char stranger[] = "error limit only\\040root\\040may\\040connect\n";
	int fd = accept4(listening, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	struct connection *place = connections;

	if (fd < 0)
		return;
	while (place < connections + CONNECTIONS_MAX && place->fd >= 0)
		place++;
	if (!may_connect(fd)) {
		send(fd, stranger, sizeof stranger - 1, MSG_DONTWAIT | MSG_NOSIGNAL);
		close(fd);
	} else if (place == connections + CONNECTIONS_MAX) {
		send(fd, full, sizeof full - 1, MSG_DONTWAIT | MSG_NOSIGNAL);
		close(fd);
	} else {
		set_queue(fd, SEND_BUFFER);
		place->broken = false;
		place->syntax_errors = 0;
		place->in_used = place->out_used = 0;
		place->fd = fd;
	}
}

static void read_more(struct connection *from)
{
	ssize_t got;

	if (from->in_used == sizeof from->in)
		return; /* requests wait their turn, see take_line() */
	got = recv(from->fd, from->in + from->in_used, sizeof from->in - from->in_used, MSG_DONTWAIT);
	if (got > 0)
		from->in_used += (size_t)got;
	else if (got == 0 || (errno != EAGAIN && errno != EINTR))
		from->broken = true;
}

/* Takes one request out of the buffer and lets the session answer it. False if there is none to be taken now. */
static bool take_line(struct connection *from)
{
	static char line[LINE_MAX_BYTES + 1]; /* requests are taken apart in place, and some have to wait */
	struct request request;
	const char *wrong;
	char *newline = memchr(from->in, '\n', from->in_used);
	size_t length;

	if (newline == NULL) {
		if (from->in_used == sizeof from->in) {
			connection_say(from, "error limit a\\040line\\040has\\040at\\040most\\0408192\\040bytes");
			from->broken = true;
		}
		return false;
	}
	length = (size_t)(newline - from->in);
	memcpy(line, from->in, length);
	wrong = request_parse(line, length, &request);
	if (wrong == NULL && !session_takes(from, request.verb))
		return false;
	from->in_used -= length + 1;
	memmove(from->in, newline + 1, from->in_used);
	if (wrong == NULL) {
		session_request(from, &request);
	} else {
		char word[4 * 128];

		connection_say(from, "error syntax %s", word_escape(wrong, word, sizeof word));
		if (++from->syntax_errors >= SYNTAX_ERRORS_MAX)
			from->broken = true;
	}
	return true;
}

/* Lets lines and the session act on each other until nothing moves any more. */
static void settle(void)
{
	bool moved;

	do {
		moved = false;
		for (struct connection *c = connections; c < connections + CONNECTIONS_MAX; c++)
			while (c->fd >= 0 && !c->broken && take_line(c))
				moved = true;
		moved = session_step() || moved;
		abandoned_step();
		leftovers_step();
		for (struct connection *c = connections; c < connections + CONNECTIONS_MAX; c++) {
			if (c->fd < 0)
				continue;
			flush(c);
			if (c->broken) {
				connection_drop(c);
				session_gone(c);
				moved = true;
			}
		}
	} while (moved);
}

/* ---- the loop ---- */

static void empty(int fd)
{
	char junk[128]; /* an eventfd takes 8, a signalfd's record has 128 */

	if (read(fd, junk, sizeof junk) < 0)
		return;
}

static void wait_for(struct pollfd *fds, nfds_t count)
{
	uint64_t until = session_deadline(), now = clock_now(), left = until > now ? until - now : 0;
	struct timespec timeout = { .tv_sec = (time_t)(left / 1000000000u), .tv_nsec = (long)(left % 1000000000u) };

	/* The kernel counts a poll's timeout on CLOCK_MONOTONIC. */
	if (ppoll(fds, count, until == UINT64_MAX ? NULL : &timeout, NULL) < 0)
		for (nfds_t i = 0; i < count; i++)
			fds[i].revents = 0;
}

void server_run(int listening, int stop, int wake)
{
	bool stopping = false;

	for (struct connection *c = connections; c < connections + CONNECTIONS_MAX; c++)
		c->fd = -1;
	while (!stopping || session_armed() || abandoned_armed()) {
		struct pollfd fds[3 + CONNECTIONS_MAX] = {
			{ .fd = listening, .events = POLLIN },
			{ .fd = stop, .events = POLLIN },
			{ .fd = wake, .events = POLLIN },
		};

		for (int i = 0; i < CONNECTIONS_MAX; i++) {
			/* A full buffer is not read, but its connection's end is seen. */
			bool room = connections[i].in_used < LINE_MAX_BYTES;

			fds[3 + i].fd = connections[i].fd;
			fds[3 + i].events = room ? POLLIN | POLLRDHUP : POLLRDHUP;
		}
		wait_for(fds, 3 + CONNECTIONS_MAX);
		if (fds[1].revents) {
			empty(stop);
			stopping = true;
		}
		if (fds[2].revents)
			empty(wake);
		for (int i = 0; i < CONNECTIONS_MAX; i++) {
			struct connection *c = &connections[i];

			if (fds[3 + i].revents & POLLIN)
				read_more(c);
			else if (fds[3 + i].revents)
				c->broken = true;
		}
		settle();
		if (fds[0].revents)
			take_connection(listening);
	}
	for (struct connection *c = connections; c < connections + CONNECTIONS_MAX; c++) {
		connection_drop(c);
		session_gone(c);
	}
}
