/* See connection.h. */
#define _GNU_SOURCE
#include "connection.h"

#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
	SEND_BUFFER = 1 << 20, /* all lines of 4096 filesystems */
	LINES_BYTES = 256,     /* of one filesystem */
};

static void set_queue(int fd, int bytes)
{
	if (setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &bytes, sizeof bytes) < 0)
		setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof bytes);
}

void connection_open(struct connection *self, int socket)
{
	set_queue(socket, SEND_BUFFER);
	self->broken = false;
	self->syntax_errors = 0;
	self->in_used = self->out_used = 0;
	self->fd = socket;
}

void connection_drop(struct connection *self)
{
	if (self == NULL || self->fd < 0)
		return;
	connection_flush(self);
	close(self->fd);
	self->fd = -1;
}

bool connection_has_room(const struct connection *self)
{
	return self->in_used < sizeof self->in;
}

void connection_read(struct connection *self)
{
	ssize_t got;

	if (!connection_has_room(self))
		return; /* requests wait their turn, see session_takes() */
	got = recv(self->fd, self->in + self->in_used, sizeof self->in - self->in_used, MSG_DONTWAIT);
	if (got > 0)
		self->in_used += (size_t)got;
	else if (got == 0 || (errno != EAGAIN && errno != EINTR))
		self->broken = true;
}

void connection_say(struct connection *to, const char *format, ...)
{
	char line[CONNECTION_OUT_BYTES];
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
		connection_flush(to);
	memcpy(to->out + to->out_used, line, (size_t)length);
	to->out_used += (size_t)length;
}

void connection_refuse(struct connection *to, const char *code, const char *format, ...)
{
	char text[512], word[4 * sizeof text];
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(text, sizeof text, format, arguments);
	va_end(arguments);
	connection_say(to, "error %s %s", code, word_escape(text, word, sizeof word));
}

void connection_flush(struct connection *to)
{
	size_t length;

	if (to == NULL || to->out_used == 0)
		return;
	length = to->out_used;
	to->out_used = 0;
	if (send(to->fd, to->out, length, MSG_DONTWAIT | MSG_NOSIGNAL) != (ssize_t)length)
		to->broken = true;
}

void connection_expect(struct connection *to, size_t filesystems)
{
	size_t bytes = filesystems * LINES_BYTES;

	if (to != NULL && bytes > SEND_BUFFER && bytes <= INT_MAX / 2 && (filesystems & (filesystems - 1)) == 0)
		set_queue(to->fd, 2 * (int)bytes);
}

int connection_socket(const struct connection *self)
{
	return self->fd;
}
