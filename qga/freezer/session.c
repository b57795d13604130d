/* See session.h; the rules are those of "The guest always comes back" in the design and of README.md. */
#define _GNU_SOURCE
#include "session.h"
#include "rcu.h"
#include "system.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
	LONGEST_MS = 3600 * 1000, /* of a lease or a budget */
	CRITICAL_LONGEST_MS = 600 * 1000,
	THAW_ANSWER_MS = 2000,
	GROUP_THAW_MS = 250, /* then the next group is thawed too: one dead disk must not hold the rest */
	LET_GO_MS = 1000,
	LINGER_MS = 10 * 1000,
};

#define NEVER UINT64_MAX

/* idle -> planned -> freezing -> frozen -> thawing -> idle; planned -> idle; freezing -> thawing. */
enum state { IDLE, PLANNED, FREEZING, FROZEN, THAWING };
static const char *const state_names[] = { "idle", "planned", "freezing", "frozen", "thawing" };

static struct session_setup setup;
static char marker_temporary[PATH_MAX_BYTES + 1];
static uint64_t start_time;
static struct marker marker; /* as last written; paths belong to the workers */

static struct {
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
	uint64_t group_until; /* thawing: when the next one follows anyway */
	bool thaw_begun, reported;

	size_t count;
	struct worker *fs[FILESYSTEMS_MAX];
	bool marked[FILESYSTEMS_MAX]; /* stands in the marker */
} session;

/* ---- small things ---- */

#define EACH(i) for (size_t i = 0; i < session.count; i++)

static unsigned long long number(uint64_t value)
{
	return value;
}

__attribute__((format(printf, 3, 4)))
static void refuse(struct connection *to, const char *code, const char *format, ...)
{
	char text[512], word[4 * sizeof text];
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(text, sizeof text, format, arguments);
	va_end(arguments);
	connection_say(to, "error %s %s", code, word_escape(text, word, sizeof word));
}

static bool is_frozen(const struct worker_view *view)
{
	return view->ours && !view->thaw_done;
}

static size_t frozen_count(void)
{
	size_t frozen = 0;

	EACH(i) {
		struct worker_view view = worker_look(session.fs[i]);

		frozen += is_frozen(&view);
	}
	return frozen;
}

/* ---- the marker ---- */

static enum marked marked_state(const struct worker_view *view)
{
	if (!view->freeze_done)
		return view->thaw_done ? MARKED_REFUSED : MARKED_INTENDED;
	if (!view->ours)
		return MARKED_REFUSED;
	return view->thaw_done ? MARKED_THAWED : MARKED_FROZEN;
}

/* Writes it if it would say something new. 0 or an errno; then the old one still stands, and errs on the safe side. */
static int marker_update(void)
{
	bool news = false;
	size_t line = 0;
	int error;

	EACH(i) {
		const struct worker_identity *identity = worker_identity(session.fs[i]);
		struct worker_view view;
		struct marker_entry entry;

		if (!session.marked[i])
			continue;
		view = worker_look(session.fs[i]);
		entry = (struct marker_entry){ marked_state(&view), identity->mount_id, identity->major,
					       identity->minor, identity->path };
		if (line >= marker.count || marker.entries[line].path != entry.path ||
		    marker.entries[line].state != entry.state)
			news = true;
		marker.entries[line++] = entry;
	}
	if (!news)
		return 0;
	marker.count = line;
	error = marker_write(setup.marker, marker_temporary, &marker);
	if (error != 0)
		marker.count = 0; /* so that the next call tries again */
	return error;
}

/* ---- the session's life ---- */

int session_init(const struct session_setup *given)
{
	setup = *given;
	if (snprintf(marker_temporary, sizeof marker_temporary, "%s.new", setup.marker) >= (int)sizeof marker_temporary)
		return ENAMETOOLONG;
	start_time = process_start_time(getpid());
	memset(&session, 0, sizeof session);
	session.holder_pidfd = -1;
	return 0;
}

static void release(void)
{
	rcu_close();
	EACH(i)
		worker_close(session.fs[i]);
	if (session.holder_pidfd >= 0)
		close(session.holder_pidfd);
	marker.count = 0;
	memset(&session, 0, sizeof session);
	session.holder_pidfd = -1;
}

static void begin_thaw(void)
{
	session.state = THAWING;
	session.thaw_begun = false;
	rcu_restore();
}

/* The holder did not keep its word: its connection ends here, and by default its process too. */
static void drop_holder(bool kill)
{
	if (kill && session.holder_pidfd >= 0)
		pidfd_kill(session.holder_pidfd);
	connection_drop(session.holder);
	session_gone(session.holder);
}

void session_gone(const struct connection *from)
{
	if (session.holder != from || from == NULL)
		return;
	session.holder = NULL;
	session.asked = NOTHING;
	session.let_go_until = 0;
	switch (session.state) {
	case PLANNED:
		release();
		break;
	case FREEZING:
	case FROZEN:
		begin_thaw();
		break;
	default:
		if (session.reported)
			release();
		break; /* else session_step() does, when all is thawed */
	}
}

static void hold(struct connection *from)
{
	struct ucred peer;
	socklen_t size = sizeof peer;

	session.holder = from;
	session.holder_pidfd = -1;
	if (setup.kill_holders && getsockopt(connection_socket(from), SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 &&
	    peer.pid > 1 && peer.pid != getpid())
		session.holder_pidfd = peer_pidfd(connection_socket(from), peer.pid);
}

/* ---- requests ---- */

static void plan(struct connection *from, const struct request *request)
{
	if (session.state != IDLE && session.holder == from) {
		refuse(from, "state", "plan: this connection holds session %s already", session.id);
		return;
	}
	if (session.state != IDLE) {
		char owner[4 * OWNER_MAX_BYTES + 1], text[160], word[4 * sizeof text];

		snprintf(text, sizeof text, "plan: the session is held by another connection (%s)",
			 state_names[session.state]);
		connection_say(from, "error busy %s %llu %llu %s", word_escape(session.owner, owner, sizeof owner),
			       number(session.since), number(session.first == 0 ? 0 : session.lease_until),
			       word_escape(text, word, sizeof word));
		return;
	}
	if (request->ms == 0 || request->ms > LONGEST_MS || request->budget_ms == 0 ||
	    request->budget_ms > LONGEST_MS) {
		refuse(from, "limit", "plan: expected LEASE_MAX_MS and BUDGET_MS of 1 to %d", LONGEST_MS);
		return;
	}
	session.state = PLANNED;
	strcpy(session.id, request->session);
	strcpy(session.owner, request->owner);
	session.since = clock_now();
	session.lease_max_ms = request->ms;
	session.planned_until = deadline_after(session.since, request->budget_ms);
	hold(from);
	if (request->expedite)
		rcu_open(setup.rcu_knob);
	connection_say(from, "ok plan");
}

static void add_filesystem(struct connection *from, const struct request *request)
{
	char text[256] = "", word[4 * sizeof text];
	struct worker *worker;
	int error;

	if (session.count == FILESYSTEMS_MAX || workers_alive() >= FILESYSTEMS_MAX) {
		refuse(from, "limit", "fs: at most %d filesystems", FILESYSTEMS_MAX);
		return;
	}
	worker = worker_open(request, setup.calls, setup.wake, &error, text, sizeof text);
	if (worker != NULL) {
		EACH(i) {
			if (worker_identity(session.fs[i])->device != worker_identity(worker)->device)
				continue;
			snprintf(text, sizeof text, "fs: its device is planned already, at index %zu", i);
			error = EEXIST;
		}
	}
	if (error != 0) {
		if (worker != NULL)
			worker_close(worker);
		connection_say(from, "error fs %d %s", error, word_escape(text, word, sizeof word));
		return;
	}
	session.fs[session.count] = worker;
	connection_say(from, "ok fs %zu", session.count++);
}

/* The next group above GROUP (ascending) or below it, or the very first in that direction; false if there is none. */
static bool next_group(bool ascending, bool outermost, uint64_t *group)
{
	bool found = false;
	uint64_t best = 0;

	EACH(i) {
		uint64_t here = worker_identity(session.fs[i])->group;

		if (!outermost && (ascending ? here <= *group : here >= *group))
			continue;
		if (!found || (ascending ? here < best : here > best))
			best = here;
		found = true;
	}
	if (found)
		*group = best;
	return found;
}

static bool in_group(size_t i)
{
	return worker_identity(session.fs[i])->group == session.group;
}

/* Marks the group `intended`, then lets all its threads go at once. */
static void freeze_group(void)
{
	int error;

	EACH(i)
		session.marked[i] = session.marked[i] || in_group(i);
	error = marker_update();
	if (session.first == 0) {
		rcu_expedite();
		session.first = clock_now();
		session.lease_until = deadline_after(session.first, session.lease_ms);
	}
	EACH(i) {
		if (!in_group(i))
			continue;
		if (error != 0)
			worker_refuse(session.fs[i], error); /* never freeze what a successor could not find */
		else
			worker_freeze(session.fs[i]);
	}
}

static void freeze(struct connection *from, const struct request *request)
{
	if (session.state != PLANNED || session.count == 0) {
		refuse(from, "state", "freeze: expected planned with at least one filesystem, found %s with %zu",
		       state_names[session.state], session.count);
		return;
	}
	if (request->ms == 0 || request->ms > session.lease_max_ms) {
		refuse(from, "limit", "freeze: expected LEASE_MS of 1 to %llu", number(session.lease_max_ms));
		return;
	}
	marker = (struct marker){ .pid = getpid(), .start_time = start_time };
	strcpy(marker.session, session.id);
	rcu_read(marker.rcu, sizeof marker.rcu);
	session.state = FREEZING;
	session.asked = FREEZING_ALL;
	next_group(true, true, &session.group);
	session.lease_ms = request->ms;
	freeze_group();
}

static void sync_all(struct connection *from, const struct request *request)
{
	if (session.state != PLANNED) {
		refuse(from, "state", "sync: expected planned, found %s", state_names[session.state]);
		return;
	}
	if (request->ms > LONGEST_MS) {
		refuse(from, "limit", "sync: expected BUDGET_MS of at most %d", LONGEST_MS);
		return;
	}
	session.asked = SYNCING;
	session.answer_by = deadline_after(clock_now(), request->ms);
	EACH(i)
		worker_sync(session.fs[i]);
}

static void renew(struct connection *from, const struct request *request)
{
	if (session.state != FREEZING && session.state != FROZEN) {
		refuse(from, "state", "renew: expected freezing or frozen, found %s", state_names[session.state]);
		return;
	}
	session.lease_until = deadline_renewed(clock_now(), request->ms, session.first, session.lease_max_ms);
	connection_say(from, "ok renew %llu", number(session.lease_until));
}

static void critical(struct connection *from, const struct request *request)
{
	if (request->verb == VERB_CRITICAL_ON && (request->ms == 0 || request->ms > CRITICAL_LONGEST_MS)) {
		refuse(from, "limit", "critical: expected BOUND_MS of 1 to %d", CRITICAL_LONGEST_MS);
		return;
	}
	if (request->verb == VERB_CRITICAL_ON) {
		session.critical_until = deadline_after(clock_now(), request->ms);
	} else {
		session.critical_until = 0;
		if (session.expired && session.let_go_until != 0)
			session.let_go_until = deadline_after(clock_now(), LET_GO_MS);
	}
	connection_say(from, "ok critical");
}

static void thaw(struct connection *from)
{
	if (session.state == PLANNED) {
		if (session.asked == SYNCING)
			refuse(from, "state", "sync: ended by thaw");
		release();
		connection_say(from, "ok thaw");
		return;
	}
	if (session.asked == FREEZING_ALL)
		refuse(from, "state", "freeze: ended by thaw");
	if (session.state != THAWING)
		begin_thaw();
	session.critical_until = 0; /* the holder itself says that its section is over */
	session.let_go_until = 0;
	session.asked = THAWING_ALL;
	session.answer_by = deadline_after(clock_now(), THAW_ANSWER_MS);
}

static void status(struct connection *to)
{
	char id[4 * ID_MAX_BYTES + 1], owner[4 * OWNER_MAX_BYTES + 1];

	connection_say(to, "ok status %s %s %s %llu %llu %llu %zu", state_names[session.state],
		       word_escape(session.id, id, sizeof id), word_escape(session.owner, owner, sizeof owner),
		       number(session.since), number(session.first), number(session.lease_until), frozen_count());
}

bool session_takes(const struct connection *from, enum verb verb)
{
	if (session.holder != from || session.asked == NOTHING || verb == VERB_HELLO || verb == VERB_STATUS)
		return true;
	if (session.asked == THAWING_ALL)
		return false;
	return verb == VERB_RENEW || verb == VERB_CRITICAL_ON || verb == VERB_CRITICAL_OFF || verb == VERB_THAW;
}

void session_request(struct connection *from, const struct request *request)
{
	bool holds = session.state != IDLE && session.holder == from;

	if (request->verb == VERB_HELLO) {
		connection_say(from, "ok hello 1 %d %llu", (int)getpid(), number(start_time));
		return;
	}
	if (request->verb == VERB_STATUS) {
		status(from);
		return;
	}
	/* A thawing lets nothing through but what ends it; `off` only makes it come sooner. */
	if (holds && session.expired && request->verb != VERB_THAW && request->verb != VERB_CRITICAL_OFF) {
		refuse(from, "expired", "the lease ended at %llu", number(session.lease_until));
		return;
	}
	if (request->verb == VERB_PLAN) {
		plan(from, request);
		return;
	}
	if (!holds) {
		refuse(from, "state", "expected a connection that holds the session, found one that does not");
		return;
	}
	switch (request->verb) {
	case VERB_FS:
		if (session.state == PLANNED)
			add_filesystem(from, request);
		else
			refuse(from, "state", "fs: expected planned, found %s", state_names[session.state]);
		break;
	case VERB_SYNC:
		sync_all(from, request);
		break;
	case VERB_FREEZE:
		freeze(from, request);
		break;
	case VERB_RENEW:
		renew(from, request);
		break;
	case VERB_CRITICAL_ON:
	case VERB_CRITICAL_OFF:
		critical(from, request);
		break;
	default:
		thaw(from);
		break;
	}
}

/* ---- what happens by itself ---- */

static void step_sync(uint64_t now)
{
	bool all = true;

	EACH(i)
		all = all && worker_look(session.fs[i]).sync_done;
	if (!all && now < session.answer_by)
		return;
	EACH(i) {
		struct worker_view view = worker_look(session.fs[i]);

		if (!view.sync_done)
			view.sync = (struct answer){ ETIMEDOUT, view.sync.start, 0 };
		connection_say(session.holder, "fs %zu sync %d %llu %llu", i, view.sync.error, number(view.sync.start),
			       number(view.sync.end));
	}
	session.asked = NOTHING;
	connection_say(session.holder, "ok sync");
}

static void say_freeze_lines(void)
{
	EACH(i) {
		struct worker_view view = worker_look(session.fs[i]);

		if (view.freeze_done)
			connection_say(session.holder, "fs %zu freeze %d %llu %llu", i, view.freeze.error,
				       number(view.freeze.start), number(view.freeze.end));
	}
}

static void step_freezing(void)
{
	for (;;) {
		EACH(i)
			if (in_group(i) && !worker_look(session.fs[i]).freeze_done)
				return;
		if (!next_group(true, false, &session.group))
			break;
		freeze_group();
	}
	rcu_restore();
	session.state = FROZEN;
	session.asked = NOTHING;
	say_freeze_lines();
	connection_say(session.holder, "ok freeze %zu %llu %llu", frozen_count(), number(session.first),
		       number(session.lease_until));
}

static void expire(uint64_t now)
{
	uint64_t free_from = session.critical_until > now ? session.critical_until : now;

	session.expired = true;
	if (session.asked == FREEZING_ALL) {
		say_freeze_lines();
		refuse(session.holder, "expired", "freeze: the lease ended at %llu, before all had answered",
		       number(session.lease_until));
		session.asked = NOTHING;
	}
	connection_say(session.holder, "event expired %llu %llu", number(session.first), number(now));
	session.let_go_until = deadline_after(free_from, LET_GO_MS);
	session.kill_on_let_go = true;
	begin_thaw();
}

/* Tells the threads, group by group, and says whether all is thawed. */
static bool advance_thaw(uint64_t now)
{
	bool all = true;

	if (!session.thaw_begun) {
		if (now < session.critical_until)
			return false;
		session.thaw_begun = true;
		next_group(false, true, &session.group);
		session.group_until = 0;
	}
	for (;;) {
		bool group_done = true;

		if (session.group_until == 0)
			session.group_until = deadline_after(now, GROUP_THAW_MS);
		EACH(i) {
			if (!in_group(i))
				continue;
			worker_thaw(session.fs[i]);
			group_done = group_done && worker_look(session.fs[i]).thaw_done;
		}
		if (!group_done && now < session.group_until)
			return false;
		if (!next_group(false, false, &session.group))
			break;
		session.group_until = 0;
	}
	session.group_until = NEVER;
	EACH(i)
		all = all && worker_look(session.fs[i]).thaw_done;
	return all;
}

static void say_thaw_lines(void)
{
	EACH(i) {
		struct worker_view view = worker_look(session.fs[i]);
		int error = view.thaw.error;

		if (!view.thaw_done && (error == 0 || error == EINVAL))
			error = ETIMEDOUT;
		connection_say(session.holder, "fs %zu thaw %d %llu %llu %d", i, error, number(view.thaw.start),
			       number(view.thaw.end), view.ours);
	}
}

static void step_thawing(uint64_t now)
{
	bool all = advance_thaw(now);

	if (all && !session.reported) {
		session.reported = true;
		unlink(setup.marker);
		if (session.holder != NULL && session.expired) {
			say_thaw_lines();
			connection_say(session.holder, "event thawed expired");
		}
		/* It was answered `error thaw` and may want to know the end of it, but not for ever. */
		if (session.holder != NULL && session.asked == NOTHING && session.let_go_until == 0) {
			session.let_go_until = deadline_after(now, LINGER_MS);
			session.kill_on_let_go = false;
		}
	}
	if (all && session.holder == NULL) {
		release();
	} else if (all && session.asked == THAWING_ALL) {
		struct connection *holder = session.holder;

		if (session.expired)
			refuse(holder, "expired", "thaw: the lease ended at %llu, all was thawed without being asked",
			       number(session.lease_until));
		else
			say_thaw_lines();
		if (!session.expired)
			connection_say(holder, "ok thaw");
		release();
	} else if (session.asked == THAWING_ALL && now >= session.answer_by) {
		say_thaw_lines();
		refuse(session.holder, "thaw", "thaw: not all is thawed after %d ms; it goes on", THAW_ANSWER_MS);
		session.asked = NOTHING;
	}
}

bool session_step(void)
{
	uint64_t now = clock_now();
	enum state state_before = session.state;
	int asked_before = session.asked;

	if (session_armed())
		marker_update();
	if (session.state == PLANNED && session.asked == SYNCING)
		step_sync(now);
	if (session.state == PLANNED && now >= session.planned_until)
		drop_holder(true);
	if ((session.state == FREEZING || session.state == FROZEN) && now >= session.lease_until)
		expire(now);
	if (session.state == FREEZING)
		step_freezing();
	if (session.state == THAWING)
		step_thawing(now);
	if (session.state == THAWING && session.let_go_until != 0 && now >= session.let_go_until)
		drop_holder(session.kill_on_let_go);
	return session.state != state_before || (int)session.asked != asked_before;
}

static void earliest(uint64_t *deadline, uint64_t candidate)
{
	if (candidate != 0 && candidate < *deadline)
		*deadline = candidate;
}

uint64_t session_deadline(void)
{
	uint64_t deadline = NEVER;

	if (session.asked == SYNCING || session.asked == THAWING_ALL)
		earliest(&deadline, session.answer_by);
	if (session.state == PLANNED)
		earliest(&deadline, session.planned_until);
	if (session.state == FREEZING || session.state == FROZEN)
		earliest(&deadline, session.lease_until);
	if (session.state == THAWING) {
		earliest(&deadline, session.thaw_begun ? session.group_until : session.critical_until);
		earliest(&deadline, session.let_go_until);
	}
	return deadline;
}

bool session_armed(void)
{
	return session.state == FREEZING || session.state == FROZEN ||
	       (session.state == THAWING && !session.reported);
}
