/* See session-state.h: what a connection may ask for, and when. Rules and answers are those of README.md. */
#define _GNU_SOURCE
#include "session-state.h"
#include "abandoned.h"
#include "leftovers.h"
#include "mount-table.h"
#include "rcu.h"
#include "system.h"

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
		connection_refuse(from, "state", "plan: this connection holds session %s already", session.id);
		return;
	}
	if (session.state != IDLE) {
		char owner[4 * OWNER_MAX_BYTES + 1], text[160], word[4 * sizeof text];

		snprintf(text, sizeof text, "plan: the session is held by another connection (%s)",
			 session_state_names[session.state]);
		connection_say(from, "error busy %s %llu %llu %s", word_escape(session.owner, owner, sizeof owner),
			       ull(session.since), ull(session.first == 0 ? 0 : session.lease_until),
			       word_escape(text, word, sizeof word));
		return;
	}
	if (request->lease_ms == 0 || request->lease_ms > LONGEST_MS || request->budget_ms == 0 ||
	    request->budget_ms > LONGEST_MS) {
		connection_refuse(from, "limit", "plan: expected LEASE_MAX_MS and BUDGET_MS of 1 to %d", LONGEST_MS);
		return;
	}
	session.state = PLANNED;
	strcpy(session.id, request->session);
	strcpy(session.owner, request->owner);
	session.since = clock_now();
	session.lease_max_ms = request->lease_ms;
	session.planned_until = deadline_after(session.since, request->budget_ms);
	hold(from);
	mounts_forget();
	if (request->expedite)
		rcu_open(session_given.rcu_knob);
	connection_say(from, "ok plan");
}

static void freeze(struct connection *from, const struct request *request)
{
	if (session.state != PLANNED || session.count == 0) {
		connection_refuse(from, "state",
				  "freeze: expected planned with at least one filesystem, found %s with %zu",
				  session_state_names[session.state], session.count);
		return;
	}
	if (request->lease_ms == 0 || request->lease_ms > session.lease_max_ms) {
		connection_refuse(from, "limit", "freeze: expected LEASE_MS of 1 to %llu", ull(session.lease_max_ms));
		return;
	}
	if (request->limit_ms > LONGEST_MS) {
		connection_refuse(from, "limit", "freeze: expected LIMIT_MS of 1 to %d", LONGEST_MS);
		return;
	}
	mounts_forget();
	session_marker_begin();
	session.state = FREEZING;
	session.asked = FREEZING_ALL;
	session.group = session_first_group();
	session.lease_ms = request->lease_ms;
	session.limit_ms = request->limit_ms;
	session_freeze_group();
}

static void sync_all(struct connection *from, const struct request *request)
{
	if (session.state != PLANNED) {
		connection_refuse(from, "state", "sync: expected planned, found %s",
				  session_state_names[session.state]);
		return;
	}
	if (request->budget_ms > LONGEST_MS) {
		connection_refuse(from, "limit", "sync: expected BUDGET_MS of at most %d", LONGEST_MS);
		return;
	}
	session.asked = SYNCING;
	session.answer_by = deadline_after(clock_now(), request->budget_ms);
	EACH(i)
		worker_sync(session.fs[i].worker);
}

static void renew(struct connection *from, const struct request *request)
{
	if (session.state != FREEZING && session.state != FROZEN) {
		connection_refuse(from, "state", "renew: expected freezing or frozen, found %s",
				  session_state_names[session.state]);
		return;
	}
	session.lease_until = deadline_renewed(clock_now(), request->lease_ms, session.first, session.lease_max_ms);
	connection_say(from, "ok renew %llu", ull(session.lease_until));
}

static void critical(struct connection *from, const struct request *request)
{
	if (request->verb == VERB_CRITICAL_ON && (request->bound_ms == 0 || request->bound_ms > CRITICAL_LONGEST_MS)) {
		connection_refuse(from, "limit", "critical: expected BOUND_MS of 1 to %d", CRITICAL_LONGEST_MS);
		return;
	}
	if (request->verb == VERB_CRITICAL_ON) {
		session.critical_until = deadline_after(clock_now(), request->bound_ms);
	} else {
		session.critical_until = 0;
		if (session.expired && session.let_go_until != 0)
			session.let_go_until = deadline_after(clock_now(), LET_GO_MS);
	}
	/*
	 * Before it is answered: should this freezer die inside the section, whoever thaws by the marker waits, too. A
	 * tmpfs that is full costs that, and no more.
	 */
	if (session.state != PLANNED && !session.reported)
		session_mark();
	connection_say(from, "ok critical");
}

static void thaw(struct connection *from)
{
	if (session.state == PLANNED) {
		if (session.asked == SYNCING)
			connection_refuse(from, "state", "sync: ended by thaw");
		session_release();
		connection_say(from, "ok thaw");
		return;
	}
	if (session.asked == FREEZING_ALL)
		connection_refuse(from, "state", "freeze: ended by thaw");
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
		       ull(session.since), ull(session.first), ull(session.lease_until), session_frozen_count());
}

static void say_hung(const char *call, uint64_t since, const char *id, const char *path, void *context)
{
	static char path_word[4 * PATH_MAX_BYTES + 1];
	char id_word[4 * ID_MAX_BYTES + 1];
	struct connection *to = *(struct connection **)context;

	connection_say(to, "hung %s %llu %s %s", call, ull(since), word_escape(id, id_word, sizeof id_word),
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
		connection_say(from, "ok hello 1 %d %llu", (int)getpid(), ull(session_start_time));
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
		connection_refuse(from, "expired", "the lease ended at %llu", ull(session.lease_until));
		return;
	}
	if (request->verb == VERB_PLAN) {
		plan(from, request);
		return;
	}
	if (!holds) {
		connection_refuse(from, "state",
				  "expected a connection that holds the session, found one that does not");
		return;
	}
	switch (request->verb) {
	case VERB_FS:
		if (session.state == PLANNED)
			session_open(from, request);
		else
			connection_refuse(from, "state", "fs: expected planned, found %s",
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
