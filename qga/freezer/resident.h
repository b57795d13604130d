/* What makes the freezer resident: memory, descriptors, signals, and what it tells whoever has started it. */
#ifndef FREEZER_RESIDENT_H
#define FREEZER_RESIDENT_H

#include <stdbool.h>

/* On stderr, which drop_stdio() ends. */
void fail(const char *what, const char *why);

void close_inherited(void);

/* Never swapped out, never chosen by the OOM killer: what thaws must run when nothing else does. LOCKED: or else false. */
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
