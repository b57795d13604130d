/* Thawing what a freezer that died, or does not answer any more, has left behind: `freezer --thaw-marked`. */
#ifndef FREEZER_THAW_MARKED_H
#define FREEZER_THAW_MARKED_H

#include "process.h"
#include "worker.h"

struct leftovers {
	const char *marker, *socket, *rcu_knob;
	const struct kernel_calls *calls;
	int bound_ms; /* for a filesystem that does not answer, or whose FIFREEZE may still be under way */
};

/*
 * 0: all that is marked is thawed, or nothing is marked; the marker is gone. 1: not so. Says on stdout what it did.
 * What was set aside (leftovers.h) is thawed too, unless a freezer serves the socket: that one sees to it.
 */
int thaw_marked(const struct leftovers *what);
/* The same of the marker alone. */
int thaw_marker(const struct leftovers *what);

/*
 * Tries once. 0: thawed. EINVAL: it was not frozen, and will not be. ETIMEDOUT: OLD, the process that was to freeze it
 * (or none), is still inside the kernel and may freeze it. Else what went wrong.
 */
int thaw_entry(const struct marker_entry *entry, const struct kernel_calls *calls, const struct process *old);

#endif
