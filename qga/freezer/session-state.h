/*
 * The session as its three parts see it: session.c keeps it and its marker,
 * session-requests.c is what its holder asks for, session-steps.c what happens
 * by itself. For these three alone; what the server sees is session.h.
 */
#ifndef FREEZER_SESSION_STATE_H
#define FREEZER_SESSION_STATE_H

#include "session.h"

enum {
	LONGEST_MS = 3600 * 1000, /* of a lease, a limit or a budget */
	CRITICAL_LONGEST_MS = 600 * 1000,
	THAW_ANSWER_MS = 2000,
	GROUP_THAW_MS = 250, /* then the next group is thawed too: one dead disk must not hold the rest */
	LET_GO_MS = 1000,
	LINGER_MS = 10 * 1000,
};

#define NEVER UINT64_MAX

/* idle -> planned -> freezing -> frozen -> thawing -> idle; planned -> idle; freezing -> thawing. */
enum state { IDLE, PLANNED, FREEZING, FROZEN, THAWING };
extern const char *const session_state_names[];

struct session {
	enum state state;
	struct connection *holder; /* NULL once it is gone */
	int holder_pidfd;          /* -1: not to be killed */
	char id[ID_MAX_BYTES + 1];
	char owner[OWNER_MAX_BYTES + 1];
	uint64_t since, lease_max_ms, lease_ms;
	uint64_t planned_until, first, lease_until, critical_until, let_go_until;
	bool kill_on_let_go;
	bool expired;

	enum { NOTHING, SYNCING, FREEZING_ALL, THAWING_ALL } asked; /* not answered yet */
	uint64_t answer_by;

	uint64_t group;       /* the one being frozen or thawed */
	uint64_t group_until; /* freezing: when it is given up; thawing: when the next one follows anyway */
	uint64_t limit_ms;    /* of each freeze; 0: none but the lease */
	bool thaw_begun, reported;
	bool gave_up; /* and its holder has not been told how the rest was thawed */

	size_t count;
	struct worker *fs[FILESYSTEMS_MAX];
	bool marked[FILESYSTEMS_MAX];    /* stands in the marker */
	bool sync_late[FILESYSTEMS_MAX]; /* not done when `sync` was answered: told with its freeze */
	bool hung[FILESYSTEMS_MAX];      /* its freeze was given up */
};
extern struct session session;
extern struct session_setup session_given;
extern uint64_t session_start_time; /* of this process */

#define EACH(i) for (size_t i = 0; i < session.count; i++)

static inline unsigned long long number(uint64_t value)
{
	return value;
}

/* ---- session.c ---- */

__attribute__((format(printf, 3, 4))) void session_refuse(struct connection *to, const char *code, const char *format, ...);
size_t session_frozen_count(void);
/* A new one, with nothing in it; not written yet. */
void session_marker_begin(void);
/* Writes the marker if it would say something new. 0 or an errno; then the old one still stands, and errs on the safe side. */
int session_mark(void);
/* Forgets it: nothing is frozen. */
void session_release(void);
void session_begin_thaw(void);
/* The holder did not keep its word: its connection ends here, and by default its process too. */
void session_drop_holder(bool kill);

/* ---- session-steps.c ---- */

/* The next group above GROUP (ascending) or below it, or the very first in that direction; false if there is none. */
bool session_next_group(bool ascending, bool outermost, uint64_t *group);
/* Marks the group `intended`, then lets all its threads go at once. */
void session_freeze_group(void);

#endif
