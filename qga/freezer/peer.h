/* Who is at the other end of a socket: the freezer that serves a path, and whether a client may be served. */
#ifndef FREEZER_PEER_H
#define FREEZER_PEER_H

#include <stdbool.h>
#include <sys/types.h>

enum peer {
	PEER_NOBODY,  /* nobody listens there, or only one that was killed and serves nobody any more */
	PEER_SILENT,  /* somebody listens and does not answer */
	PEER_ANSWERS, /* a freezer, alive */
};

/* Asks who serves PATH with a `hello`, and waits up to WAIT_MS. PID: of the silent or answering one; 0: not known. */
enum peer peer_ask(const char *path, int wait_ms, pid_t *pid);

/* The process that connected SOCKET belongs to root, or to the freezer's own user. */
bool peer_may_connect(int socket);

#endif
