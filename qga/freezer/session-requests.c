/* See session-state.h: what a connection may ask for, and when. Rules and answers are those of README.md. */
#define _GNU_SOURCE
#include "session-state.h"
#include "leftovers.h"
#include "rcu.h"
#include "system.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static void hold(struct connection *from)
{
	struct ucred peer;
	socklen_t size = sizeof peer;

	session.holder = from;
	session.holder_pidfd = -1;
	if (session_given.kill_holders && getsockopt(connection_socket(from), SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 &&
	    peer.pid > 1 && peer.pid != getpid())
		session.holder_pidfd = peer_pidfd(connection_socket(from), peer.pid);
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
	if (request->expedite)
		rcu_open(session_given.rcu_knob);
	connection_say(from, "ok plan");
}

static void add_filesystem(struct connection *from, const struct request *request)
{
	char text[256] = "", word[4 * sizeof text];
	struct worker *worker;
	int error;

	if (session.count == FILESYSTEMS_MAX || workers_alive() >= FILESYSTEMS_MAX) {
		session_refuse(from, "limit", "fs: at most %d filesystems", FILESYSTEMS_MAX);
		return;
	}
	worker = worker_open(request, session_given.calls, session_given.wake, &error, text, sizeof text);
	if (worker != NULL) {
		EACH(i) {
			if (worker_identity(session.fs[i])->device != worker_identity(worker)->device)
				continue;
			snprintf(text, sizeof text, "fs: its device is planned already, at index %zu", i);
			error = EEXIST;
		}
		if (error == 0 && leftovers_hold(worker_identity(worker))) {
			snprintf(text, sizeof text, "fs: a freezer that died froze it, and it is not thawed yet");
			error = EBUSY;
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

static void freeze(struct connection *from, const struct request *request)
{
	if (session.state != PLANNED || session.count == 0) {
		session_refuse(from, "state", "freeze: expected planned with at least one filesystem, found %s with %zu",
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
		worker_sync(session.fs[i]);
}

static void renew(struct connection *from, const struct request *request)
{
	if (session.state != FREEZING && session.state != FROZEN) {
		session_refuse(from, "state", "renew: expected freezing or frozen, found %s", session_state_names[session.state]);
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
		       number(session.since), number(session.first), number(session.lease_until), session_frozen_count());
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
		connection_say(from, "ok hello 1 %d %llu", (int)getpid(), number(session_start_time));
		return;
	}
	if (request->verb == VERB_STATUS) {
		status(from);
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
			session_refuse(from, "state", "fs: expected planned, found %s", session_state_names[session.state]);
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
