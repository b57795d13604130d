/* The socket: who may connect, lines in, lines out, and the loop that drives the session. */
#ifndef FREEZER_SERVER_H
#define FREEZER_SERVER_H

#include "session.h"

/*
 * Makes the socket (0600, in place of whatever lies at PATH) and listens. The
 * file descriptor, or -1 with errno.
 */
int server_listen(const char *path);

/*
 * Serves until STOP is readable and nothing is armed: a signal that comes while
 * something is frozen is obeyed when it is thawed. WAKE is the workers' eventfd.
 * STOP is emptied by reads of up to 128 bytes.
 */
void server_run(int listening, int stop, int wake);

/*
 * Asks who serves PATH. Its pid if it answers `hello` within WAIT_MS; 0 if
 * nobody listens; -1 if somebody listens and does not answer: `silent` is its
 * pid then, 0 if unknown.
 */
pid_t server_ask(const char *path, int wait_ms, pid_t *silent);

#endif
