/*
 * One client's connection: what has come in and not been taken, and what is said to it. Nothing in here waits. Which
 * connections there are, and when each is read, is server.c; what the lines mean is session.h.
 */
#ifndef FREEZER_CONNECTION_H
#define FREEZER_CONNECTION_H

#include "request.h"

#include <stdbool.h>

enum { CONNECTION_OUT_BYTES = 4096 };

struct connection {
	int fd;      /* -1: free */
	bool broken; /* ends when what was said to it has been sent */
	unsigned syntax_errors;
	size_t in_used, out_used;
	char in[LINE_MAX_BYTES];
	char out[CONNECTION_OUT_BYTES];
};

/* Takes SOCKET over. */
void connection_open(struct connection *, int socket);
/* Ends the connection. The session is not told: session_gone() is for whoever calls this to call. */
void connection_drop(struct connection *);

/* Reads what there is and has room. Its end, or an error, breaks the connection. */
void connection_read(struct connection *);
bool connection_has_room(const struct connection *);

/* One line; nothing if the connection is NULL. It is sent with what follows it, by connection_flush() at the latest. */
__attribute__((format(printf, 2, 3))) void connection_say(struct connection *, const char *format, ...);
/* The line `error CODE TEXT`, with the text as one word. */
__attribute__((format(printf, 3, 4))) void connection_refuse(struct connection *, const char *code, const char *format,
							     ...);
/*
 * Sends what was said. The socket's own buffer is the queue: whoever lets it fill up does not read, and loses the
 * connection.
 */
void connection_flush(struct connection *);
/* Makes the queue long enough for all lines of so many filesystems, also while the client does not read. */
void connection_expect(struct connection *, size_t filesystems);

int connection_socket(const struct connection *);

#endif
