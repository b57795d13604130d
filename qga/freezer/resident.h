/* What makes the freezer resident: memory, descriptors, signals, and what it tells whoever has started it. */
#ifndef FREEZER_RESIDENT_H
#define FREEZER_RESIDENT_H

#include <stdbool.h>

/* Says WHAT and WHY on stderr; nothing is seen of it after drop_stdio(). */
void fail(const char *what, const char *why);

/* Closes all descriptors but 0, 1 and 2. */
void close_inherited(void);

/*
 * Never swapped out, never chosen by the OOM killer: what thaws must run when nothing else does. False, after saying
 * why, if LOCKED is wanted and memory cannot be locked.
 */
bool become_resident(bool locked);

/* A signalfd of the signals that end it. */
int arrange_signals(void);

/* READY=1 to the service manager, if it asked for it. */
void notify_ready(void);

/*
 * The first process stays until the second one serves or has failed, and ends
 * with its exit status. Returns the pipe to tell it by.
 */
int go_into_background(void);
void tell(int parent, unsigned char status);

/* Nothing is written to a terminal, a log or a pipe from here on: it could block, or lie on a frozen filesystem. */
void drop_stdio(void);

#endif
