/* See server.h. */
#define _GNU_SOURCE
#include "server.h"
#include "abandoned.h"
#include "connection.h"
#include "leftovers.h"
#include "peer.h"
#include "session.h"
#include "system.h"

#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { CONNECTIONS_MAX = 8, SYNTAX_ERRORS_MAX = 16 };

static struct connection connections[CONNECTIONS_MAX];

/* ---- in ---- */

/* For one that is not served: `error limit TEXT`, and the end. */
static void turn_away(int fd, const char *text)
{
	char word[4 * 64], line[sizeof word + 16];
	int length = snprintf(line, sizeof line, "error limit %s\n", word_escape(text, word, sizeof word));

	send(fd, line, (size_t)length, MSG_DONTWAIT | MSG_NOSIGNAL);
	close(fd);
}

static void take_connection(int listening)
{
	int fd = accept4(listening, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	struct connection *place = connections;

	if (fd < 0)
		return;
	while (place < connections + CONNECTIONS_MAX && place->fd >= 0)
		place++;
	if (!peer_may_connect(fd))
		turn_away(fd, "only root may connect");
	else if (place == connections + CONNECTIONS_MAX)
		turn_away(fd, "at most 8 connections");
	else
		connection_open(place, fd);
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
		if (!connection_has_room(from)) {
			connection_refuse(from, "limit", "a line has at most %d bytes", LINE_MAX_BYTES);
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
		connection_refuse(from, "syntax", "%s", wrong);
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
			connection_flush(c);
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
			bool room = connection_has_room(&connections[i]);

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
				connection_read(c);
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
