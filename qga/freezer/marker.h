/*
 * The marker: what may be frozen, by whom, on tmpfs, so that it can be thawed
 * after the freezer itself has died. Format in README.md, "The marker".
 */
#ifndef FREEZER_MARKER_H
#define FREEZER_MARKER_H

#include "request.h"

#include <stdbool.h>
#include <sys/types.h>

enum {
	RCU_VALUE_MAX = 15,
	CRITICAL_LONGEST_MS = 600 * 1000, /* of a critical section, whatever a marker says */
};

enum marked { MARKED_INTENDED, MARKED_FROZEN, MARKED_REFUSED, MARKED_THAWED };

struct marker_entry {
	enum marked state;
	uint64_t mount_id;
	uint32_t major, minor;
	char *path; /* not escaped */
};

struct marker {
	pid_t pid;
	uint64_t start_time;
	char session[ID_MAX_BYTES + 1];
	char rcu[RCU_VALUE_MAX + 1]; /* "" if the knob was left alone */
	uint64_t critical_until;     /* the bound of a critical section, on CLOCK_MONOTONIC; 0: there is none */
	size_t count;
	struct marker_entry *entries;
};

/* Replaces the file by rename; TEMPORARY lies beside it. Allocates nothing. 0 or an errno. */
int marker_write(const char *path, const char *temporary, const struct marker *marker);

/*
 * 1 read, 0 there is none, -1 unreadable or damaged: `problem` says how. Entries
 * and paths are allocated; marker_free() frees them, also after -1.
 */
int marker_read(const char *path, struct marker *out, char *problem, size_t size);
void marker_free(struct marker *marker);

/*
 * Renames the marker to PATH.left-PID-STARTTIME, a damaged one to PATH.damaged.
 * 0, also if there is none, or an errno.
 */
int marker_set_aside(const char *path);
/* Calls TAKE with the path of each PATH.left-PID-STARTTIME and PATH.left-PID-STARTTIME-NUMBER. Allocates. */
void markers_set_aside(const char *path, void (*take)(const char *left, void *context), void *context);

const char *marked_name(enum marked state);
/* `intended` or `frozen`: it may be frozen, so whoever finds the marker thaws it. */
bool marker_entry_is_left(const struct marker_entry *entry);

#endif
