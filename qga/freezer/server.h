/*
 * The loop of the main thread: takes connections (at most 8), hands their lines to the session, and wakes the session
 * when a thread has answered or a deadline has passed.
 */
#ifndef FREEZER_SERVER_H
#define FREEZER_SERVER_H

/*
 * Serves until STOP is readable and nothing is armed: a signal that comes while something is frozen is obeyed when it
 * is thawed. WAKE is the eventfd of the threads. STOP is emptied by reads of up to 128 bytes.
 */
void server_run(int listening, int stop, int wake);

#endif
