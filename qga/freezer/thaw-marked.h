/* Thawing what a freezer that died, or does not answer any more, has left behind: `freezer --thaw-marked`. */
#ifndef FREEZER_THAW_MARKED_H
#define FREEZER_THAW_MARKED_H

#include "worker.h"

struct leftovers {
	const char *marker, *socket, *rcu_knob;
	const struct kernel_calls *calls;
	int bound_ms; /* for a filesystem that does not answer, or whose FIFREEZE may still be under way */
};

/* 0: all that is marked is thawed, or nothing is marked; the marker is gone. 1: not so. Says on stdout what it did. */
int thaw_marked(const struct leftovers *what);

#endif
