/*
 * The session as its own files see it; the server sees session.h. It is kept, with its marker, by session.c. What is
 * done to its filesystems is session-open.c, session-freeze.c and session-thaw.c, in the order of session-groups.c.
 * What a client asks for is session-requests.c, and what happens by itself session-steps.c.
 */
#ifndef FREEZER_SESSION_STATE_H
#define FREEZER_SESSION_STATE_H

#include "connection.h"
#include "process.h"
#include "session.h"

enum {
	LONGEST_MS = 3600 * 1000, /* of a lease, a limit or a budget */
	OPEN_ANSWER_MS = 1000,
	THAW_ANSWER_MS = 2000,
	GROUP_THAW_MS = 250,   /* then the next group is thawed too: one dead disk must not hold the rest */
	GROUPS_THAW_MS = 1000, /* then all that are left, at once */
	ABANDON_RETRY_MS = 1000,
	MARK_EVERY_MS = 20, /* as answers come in: with a thousand of them it is written a few times, not a thousand */
	LET_GO_MS = 1000,
	LINGER_MS = 60 * 1000, /* writers are released meanwhile */
};

#define NEVER UINT64_MAX

/* idle -> planned -> freezing -> frozen -> thawing -> idle; planned -> idle; freezing -> thawing. */
enum state { IDLE, PLANNED, FREEZING, FROZEN, THAWING };
extern const char *const session_state_names[];

/* One filesystem of the session. */
struct planned {
	struct worker *worker;
	bool marked;    /* stands in the marker */
	bool sync_late; /* not done when `sync` was answered: told with its freeze */
	bool hung;      /* its freeze was given up */
};

struct session {
	enum state state;
	struct connection *holder;     /* NULL once it is gone */
	struct process holder_process; /* pid 0: not to be killed */
	char id[ID_MAX_BYTES + 1];
	char owner[OWNER_MAX_BYTES + 1];
	uint64_t lease_max_ms, lease_ms;
	uint64_t since;          /* when it was planned */
	uint64_t planned_until;  /* the end of the plan's budget */
	uint64_t first;          /* the moment before the first FIFREEZE; 0: not yet */
	uint64_t lease_until;    /* the end of the lease */
	uint64_t critical_until; /* the bound of a critical section; 0: there is none */
	uint64_t let_go_until;   /* when a holder that does not let go is dropped; 0: there is no such time */
	bool kill_on_let_go;     /* and killed */
	bool expired;            /* the lease has ended: all later answers say so */

	enum { NOTHING, OPENING, SYNCING, FREEZING_ALL, THAWING_ALL } asked; /* not answered yet */
	uint64_t answer_by;

	uint64_t group;        /* the one being frozen or thawed */
	uint64_t group_until;  /* freezing: when it is given up; thawing: when the next one follows anyway */
	uint64_t limit_ms;     /* of each freeze; 0: none but the lease */
	bool reported;         /* all is thawed, and the marker gone */
	uint64_t thaw_begun;   /* 0: not yet */
	bool gave_up;          /* a freeze; and its holder has not been told how the rest was thawed */
	bool thaw_answered;    /* `error thaw` was: the next answer is the last */
	uint64_t abandon_from; /* after a failure to write it down */
	uint64_t mark_from;    /* when answers may be written to the marker again */
	bool mark_due;         /* and there may be some */

	struct worker *opening; /* of the `fs` that is under way */
	size_t count, room;
	struct planned *fs;
};
extern struct session session;
extern struct session_setup session_given;
extern uint64_t session_start_time; /* of this process */

#define EACH(i) for (size_t i = 0; i < session.count; i++)

static inline unsigned long long ull(uint64_t value)
{
	return value;
}

/* ---- session.c ---- */

size_t session_frozen_count(void);
/* Begins a new marker with nothing in it; it is not written yet. */
void session_marker_begin(void);
/*
 * Writes the marker if it would say something new. 0, or an errno: then the old one still stands, and errs on the safe
 * side.
 */
int session_mark(void);
/* The same when threads have answered: not at once if the marker was written a moment ago (MARK_EVERY_MS). */
void session_mark_answers(uint64_t now);
/* Forgets the session, of which nothing may be frozen. What is inside an open or a sync is given up. */
void session_release(void);
/* From here on session_step_thaw() thaws. RCU is put back. */
void session_begin_thaw(void);
/* The holder did not keep its word: its connection ends here, and by default its process too. */
void session_drop_holder(bool kill);

/* Room for one filesystem more, here and in the marker. 0 or an errno. */
int session_room(void);

/* ---- session-groups.c ---- */

/* The filesystem at I is in `session.group`. */
bool session_in_group(size_t i);
/* Of a session with at least one filesystem. */
uint64_t session_first_group(void);
uint64_t session_last_group(void);
/* Replaces GROUP by the next one above or below it. False, and GROUP stays, if there is none. */
bool session_group_above(uint64_t *group);
bool session_group_below(uint64_t *group);

/* ---- session-open.c ---- */

/* `fs`: begins to open it; it is answered by session_step_open(), or at once if it is refused. */
void session_open(struct connection *from, const struct request *request);
/* The filesystem that `fs` names is open by now, or will not be in time. */
void session_step_open(uint64_t now);

/* ---- session-freeze.c ---- */

/* Answers `sync` if all are synced, or its budget is over. */
void session_step_sync(uint64_t now);
/* Marks the group `intended`, then lets all its threads go at once. */
void session_freeze_group(void);
/* The next group if this one is frozen; the answer to `freeze` if all are, or when it is given up. */
void session_step_freezing(uint64_t now);
/* The lines of those that have answered. */
void session_say_freeze_lines(void);

/* ---- session-thaw.c ---- */

/* Tells the threads whose turn it is, answers `thaw` if it is due, and ends the session when all is thawed. */
void session_step_thaw(uint64_t now);
/* When a session that nobody holds any more ends without what hangs; NEVER: not yet known. */
uint64_t session_abandon_time(void);

#endif
