/* See session-state.h: what a connection may ask for, and when. Rules and answers are those of README.md. */
#define _GNU_SOURCE
#include "session-state.h"
#include "abandoned.h"
#include "leftovers.h"
#include "mount-table.h"
#include "rcu.h"
#include "system.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static void hold(struct connection *from)
{
	struct process *process = &session.holder_process;

	session.holder = from;
	if (!session_given.kill_holders || !process_of_peer(connection_socket(from), process) || process->pid == 1 ||
	    process->pid == getpid())
		process_close(process);
}

static void plan(struct connection *from, const struct request *request)
{
	if (session.state != IDLE && session.holder == from) {
		session_refuse(from, "state", "plan: this connection holds session %s already", session.id);
		return;
	}
	if (session.state != IDLE) {
		char owner[4 * OWNER_MAX_BYTES + 1], text[160], word[4 * sizeof text];

		snprintf(text, sizeof text, "plan: the session is held by another connection (%s)",
			 session_state_names[session.state]);
		connection_say(from, "error busy %s %llu %llu %s", word_escape(session.owner, owner, sizeof owner),
			       number(session.since), number(session.first == 0 ? 0 : session.lease_until),
			       word_escape(text, word, sizeof word));
		return;
	}
	if (request->ms == 0 || request->ms > LONGEST_MS || request->budget_ms == 0 ||
	    request->budget_ms > LONGEST_MS) {
		session_refuse(from, "limit", "plan: expected LEASE_MAX_MS and BUDGET_MS of 1 to %d", LONGEST_MS);
		return;
	}
	session.state = PLANNED;
	strcpy(session.id, request->session);
	strcpy(session.owner, request->owner);
	session.since = clock_now();
	session.lease_max_ms = request->ms;
	session.planned_until = deadline_after(session.since, request->budget_ms);
	hold(from);
	mounts_forget();
	if (request->expedite)
		rcu_open(session_given.rcu_knob);
	connection_say(from, "ok plan");
}

static void refuse_filesystem(struct connection *to, int error, const char *text)
{
	char word[4 * 256];

	connection_say(to, "error fs %d %s", error, word_escape(text, word, sizeof word));
}

static void add_filesystem(struct connection *from, const struct request *request)
{
	char text[256] = "";
	struct mount_kind mount = { 0 };
	int error = session_given.calls->check(request, &mount, text, sizeof text);

	if (error == 0)
		error = leftovers_hold(request, text, sizeof text);
	if (error == 0)
		error = abandoned_holds(request, &mount, text, sizeof text);
	if (error == 0) {
		error = session_room();
		if (error == 0)
			session.opening = worker_open(request, &mount, session_given.calls, session_given.wake, &error);
		if (error != 0)
			snprintf(text, sizeof text,
				 "fs: no thread for filesystem %zu (TasksMax of the unit, kernel.threads-max): %s",
				 session.count + 1, strerror(error));
	}
	if (error != 0) {
		refuse_filesystem(from, error, text);
		return;
	}
	session.asked = OPENING;
	session.answer_by = deadline_after(clock_now(), OPEN_ANSWER_MS);
}

void session_step_open(uint64_t now)
{
	struct worker *worker = session.opening;
	struct worker_view view = worker_look(worker);
	char text[256] = "";
	int error = view.open_error;

	if (!view.open_done && now < session.answer_by)
		return;
	session.asked = NOTHING;
	session.opening = NULL;
	if (!view.open_done) {
		snprintf(text, sizeof text, "fs: it could not be opened within %d ms", OPEN_ANSWER_MS);
		abandon(worker, session.id); /* it cannot freeze: nothing has to be written down */
		refuse_filesystem(session.holder, ETIMEDOUT, text);
		return;
	}
	if (error != 0)
		snprintf(text, sizeof text, "%s", worker_problem(worker));
	else
		EACH(i)
			if (worker_identity(session.fs[i].worker)->device == worker_identity(worker)->device) {
				snprintf(text, sizeof text, "fs: its device is planned already, at index %zu", i);
				error = EEXIST;
			}
	if (error != 0) {
		worker_close(worker);
		refuse_filesystem(session.holder, error, text);
		return;
	}
	session.fs[session.count] = (struct planned){ .worker = worker };
	connection_expect(session.holder, session.count + 1);
	connection_say(session.holder, "ok fs %zu", session.count++);
}

static void freeze(struct connection *from, const struct request *request)
{
	if (session.state != PLANNED || session.count == 0) {
		session_refuse(from, "state",
			       "freeze: expected planned with at least one filesystem, found %s with %zu",
			       session_state_names[session.state], session.count);
		return;
	}
	if (request->ms == 0 || request->ms > session.lease_max_ms) {
		session_refuse(from, "limit", "freeze: expected LEASE_MS of 1 to %llu", number(session.lease_max_ms));
		return;
	}
	if (request->budget_ms > LONGEST_MS) {
		session_refuse(from, "limit", "freeze: expected LIMIT_MS of 1 to %d", LONGEST_MS);
		return;
	}
	mounts_forget();
	session_marker_begin();
	session.state = FREEZING;
	session.asked = FREEZING_ALL;
	session_next_group(true, true, &session.group);
	session.lease_ms = request->ms;
	session.limit_ms = request->budget_ms;
	session_freeze_group();
}

static void sync_all(struct connection *from, const struct request *request)
{
	if (session.state != PLANNED) {
		session_refuse(from, "state", "sync: expected planned, found %s", session_state_names[session.state]);
		return;
	}
	if (request->ms > LONGEST_MS) {
		session_refuse(from, "limit", "sync: expected BUDGET_MS of at most %d", LONGEST_MS);
		return;
	}
	session.asked = SYNCING;
	session.answer_by = deadline_after(clock_now(), request->ms);
	EACH(i)
		worker_sync(session.fs[i].worker);
}

static void renew(struct connection *from, const struct request *request)
{
	if (session.state != FREEZING && session.state != FROZEN) {
		session_refuse(from, "state", "renew: expected freezing or frozen, found %s",
			       session_state_names[session.state]);
		return;
	}
	session.lease_until = deadline_renewed(clock_now(), request->ms, session.first, session.lease_max_ms);
	connection_say(from, "ok renew %llu", number(session.lease_until));
}

static void critical(struct connection *from, const struct request *request)
{
	if (request->verb == VERB_CRITICAL_ON && (request->ms == 0 || request->ms > CRITICAL_LONGEST_MS)) {
		session_refuse(from, "limit", "critical: expected BOUND_MS of 1 to %d", CRITICAL_LONGEST_MS);
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
			session_refuse(from, "state", "sync: ended by thaw");
		session_release();
		connection_say(from, "ok thaw");
		return;
	}
	if (session.asked == FREEZING_ALL)
		session_refuse(from, "state", "freeze: ended by thaw");
	if (session.state != THAWING)
		session_begin_thaw();
	session.critical_until = 0; /* the holder itself says that its section is over */
	session.let_go_until = 0;
	session.asked = THAWING_ALL;
	session.answer_by = deadline_after(clock_now(), THAW_ANSWER_MS);
}

static void status(struct connection *to)
{
	char id[4 * ID_MAX_BYTES + 1], owner[4 * OWNER_MAX_BYTES + 1];

	connection_say(to, "ok status %s %s %s %llu %llu %llu %zu", session_state_names[session.state],
		       word_escape(session.id, id, sizeof id), word_escape(session.owner, owner, sizeof owner),
		       number(session.since), number(session.first), number(session.lease_until),
		       session_frozen_count());
}

static void say_hung(const char *call, uint64_t since, const char *id, const char *path, void *context)
{
	static char path_word[4 * PATH_MAX_BYTES + 1];
	char id_word[4 * ID_MAX_BYTES + 1];
	struct connection *to = *(struct connection **)context;

	connection_say(to, "hung %s %llu %s %s", call, number(since), word_escape(id, id_word, sizeof id_word),
		       word_escape(path, path_word, sizeof path_word));
}

static void hung(struct connection *to)
{
	abandoned_each(say_hung, &to);
	leftovers_each(say_hung, &to);
	connection_say(to, "ok hung");
}

bool session_takes(const struct connection *from, enum verb verb)
{
	if (session.holder != from || session.asked == NOTHING || verb == VERB_HELLO || verb == VERB_STATUS ||
	    verb == VERB_HUNG)
		return true;
	if (session.asked == THAWING_ALL || session.asked == OPENING)
		return false;
	return verb == VERB_RENEW || verb == VERB_CRITICAL_ON || verb == VERB_CRITICAL_OFF || verb == VERB_THAW;
}

void session_request(struct connection *from, const struct request *request)
{
	bool holds = session.state != IDLE && session.holder == from;

	if (request->verb == VERB_HELLO) {
		connection_say(from, "ok hello 1 %d %llu", (int)getpid(), number(session_start_time));
		return;
	}
	if (request->verb == VERB_STATUS) {
		status(from);
		return;
	}
	if (request->verb == VERB_HUNG) {
		hung(from);
		return;
	}
	/* A thawing lets nothing through but what ends it; `off` only makes it come sooner. */
	if (holds && session.expired && request->verb != VERB_THAW && request->verb != VERB_CRITICAL_OFF) {
		session_refuse(from, "expired", "the lease ended at %llu", number(session.lease_until));
		return;
	}
	if (request->verb == VERB_PLAN) {
		plan(from, request);
		return;
	}
	if (!holds) {
		session_refuse(from, "state", "expected a connection that holds the session, found one that does not");
		return;
	}
	switch (request->verb) {
	case VERB_FS:
		if (session.state == PLANNED)
			add_filesystem(from, request);
		else
			session_refuse(from, "state", "fs: expected planned, found %s",
				       session_state_names[session.state]);
		break;
	case VERB_SYNC: sync_all(from, request); break;
	case VERB_FREEZE: freeze(from, request); break;
	case VERB_RENEW: renew(from, request); break;
	case VERB_CRITICAL_ON:
	case VERB_CRITICAL_OFF: critical(from, request); break;
	default: thaw(from); break;
	}
}
