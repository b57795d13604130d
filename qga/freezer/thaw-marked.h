/* Thawing what a freezer that died, or does not answer any more, has left behind: `freezer --thaw-marked`. */
#ifndef FREEZER_THAW_MARKED_H
#define FREEZER_THAW_MARKED_H

#include "worker.h"

struct thaw_job {
	const char *marker, *socket, *rcu_knob; /* paths */
	const struct kernel_calls *calls;
	int bound_ms; /* for a filesystem that does not answer, or whose FIFREEZE may still be under way */
};

/*
 * 0: all that is marked is thawed, or nothing is marked; the marker is gone. 1: not so. Says on stdout what it did.
 * What was set aside (leftovers.h) is thawed too, unless a freezer serves the socket: that one sees to it.
 */
int thaw_marked(const struct thaw_job *what);
/* The same of the marker alone: what was set aside is not looked at. */
int thaw_marker(const struct thaw_job *what);

#endif
