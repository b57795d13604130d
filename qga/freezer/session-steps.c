/*
 * See session-state.h: what happens by itself, as threads answer and deadlines
 * pass. The rules are those of "The guest always comes back" in the design.
 */
#define _GNU_SOURCE
#include "session-state.h"
#include "rcu.h"
#include "system.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

bool session_next_group(bool ascending, bool outermost, uint64_t *group)
{
	bool found = false;
	uint64_t best = 0;

	EACH(i) {
		uint64_t here = worker_identity(session.fs[i].worker)->group;

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

bool session_in_group(size_t i)
{
	return worker_identity(session.fs[i].worker)->group == session.group;
}

void session_freeze_group(void)
{
	int error;

	EACH(i)
		session.fs[i].marked = session.fs[i].marked || session_in_group(i);
	error = session_mark();
	session.group_until = session.limit_ms == 0 ? NEVER : deadline_after(clock_now(), session.limit_ms);
	if (session.first == 0) {
		rcu_expedite();
		session.first = clock_now();
		session.lease_until = deadline_after(session.first, session.lease_ms);
	}
	EACH(i) {
		if (!session_in_group(i))
			continue;
		if (error != 0)
			worker_refuse(session.fs[i].worker, error); /* never freeze what a successor could not find */
		else
			worker_freeze(session.fs[i].worker);
	}
}

static void say_sync_line(size_t i, int error, const struct answer *sync)
{
	connection_say(session.holder, "fs %zu sync %d %llu %llu", i, error, number(sync->start), number(sync->end));
}

static void step_sync(uint64_t now)
{
	bool all = true;

	EACH(i)
		all = all && worker_look(session.fs[i].worker).sync_done;
	if (!all && now < session.answer_by)
		return;
	EACH(i) {
		struct worker_view view = worker_look(session.fs[i].worker);

		session.fs[i].sync_late = !view.sync_done;
		if (!view.sync_done)
			view.sync.end = 0;
		say_sync_line(i, view.sync_error == 0 && !view.sync_done ? ETIMEDOUT : view.sync_error, &view.sync);
	}
	session.asked = NOTHING;
	connection_say(session.holder, "ok sync");
}

static void say_freeze_lines(void)
{
	EACH(i) {
		struct worker_view view = worker_look(session.fs[i].worker);

		if (!view.freeze_done)
			continue;
		if (session.fs[i].sync_late && view.sync.end != 0)
			say_sync_line(i, view.sync_error, &view.sync);
		connection_say(session.holder, "fs %zu freeze %d %llu %llu", i, view.freeze.error,
			       number(view.freeze.start), number(view.freeze.end));
	}
}

/*
 * The kernel has not returned a FIFREEZE within the limit: the attempt ends here. What is frozen is thawed without
 * waiting for the holder, and what hangs when the kernel returns it.
 */
static void give_up(uint64_t now)
{
	char who[256] = "";
	uint64_t soon = deadline_after(now, LET_GO_MS);

	say_freeze_lines();
	EACH(i) {
		struct worker_view view = worker_look(session.fs[i].worker);
		size_t used = strlen(who);

		if (!session_in_group(i) || view.freeze_done)
			continue;
		session.fs[i].hung = true;
		connection_say(session.holder, "fs %zu freeze %d %llu 0", i, ETIMEDOUT, number(view.freeze.start));
		snprintf(who + used, sizeof who - used, "%s%s", used == 0 ? "" : ", ",
			 worker_identity(session.fs[i].worker)->path);
	}
	session_refuse(session.holder, "freeze", "freeze: not frozen within %llu ms, given up, the rest is thawed: %s",
		       number(session.limit_ms), who);
	session.asked = NOTHING;
	session.gave_up = true;
	/* As long as it may hold its writers, and no longer. */
	session.let_go_until = session.lease_until > soon ? session.lease_until : soon;
	session.kill_on_let_go = true;
	session_begin_thaw();
}

static void step_freezing(uint64_t now)
{
	bool refused = false;

	for (;;) {
		bool group_done = true;

		EACH(i)
			group_done =
				group_done && (!session_in_group(i) || worker_look(session.fs[i].worker).freeze_done);
		if (!group_done && now >= session.group_until)
			give_up(now);
		if (!group_done)
			return;
		if (!session_next_group(true, false, &session.group))
			break;
		session_freeze_group();
	}
	session.state = FROZEN;
	session.asked = NOTHING;
	EACH(i)
		refused = refused || !worker_look(session.fs[i].worker).ours;
	/* Only then it cannot wait: while it says `intended` a successor would thaw what a stranger may have frozen. */
	if (refused)
		session_mark();
	say_freeze_lines();
	connection_say(session.holder, "ok freeze %zu %llu %llu", session_frozen_count(), number(session.first),
		       number(session.lease_until));
	/* Everything stands still until the holder knows. The rest has time: `intended` is thawed as `frozen` is. */
	connection_flush(session.holder);
	rcu_restore();
}

static void expire(uint64_t now)
{
	uint64_t free_from = session.critical_until > now ? session.critical_until : now;

	session.expired = true;
	if (session.asked == FREEZING_ALL) {
		say_freeze_lines();
		session_refuse(session.holder, "expired", "freeze: the lease ended at %llu, before all had answered",
			       number(session.lease_until));
		session.asked = NOTHING;
	}
	connection_say(session.holder, "event expired %llu %llu", number(session.first), number(now));
	session.let_go_until = deadline_after(free_from, LET_GO_MS);
	session.kill_on_let_go = true;
	session_begin_thaw();
}

bool session_step(void)
{
	uint64_t now = clock_now();
	enum state state_before = session.state;
	int asked_before = session.asked;

	if (session.state == PLANNED && session.asked == OPENING)
		session_step_open(now);
	if (session.state == PLANNED && session.asked == SYNCING)
		step_sync(now);
	if (session.state == PLANNED && now >= session.planned_until)
		session_drop_holder(true);
	if ((session.state == FREEZING || session.state == FROZEN) && now >= session.lease_until)
		expire(now);
	if (session.state == FREEZING)
		step_freezing(now);
	if (session.state == THAWING)
		session_step_thaw(now);
	if (session.state == THAWING && session.let_go_until != 0 && now >= session.let_go_until)
		session_drop_holder(session.kill_on_let_go);
	/* Last, so that nobody waits for it: until it is written the marker errs on the safe side. */
	if (session_armed())
		session_mark_answers(now);
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

	if (session.asked == OPENING || session.asked == SYNCING || session.asked == THAWING_ALL)
		earliest(&deadline, session.answer_by);
	if (session.state == PLANNED)
		earliest(&deadline, session.planned_until);
	if (session.mark_due && session_armed())
		earliest(&deadline, session.mark_from);
	if (session.state == FREEZING || session.state == FROZEN)
		earliest(&deadline, session.lease_until);
	if (session.state == FREEZING)
		earliest(&deadline, session.group_until);
	if (session.state == THAWING) {
		earliest(&deadline, session.thaw_begun != 0 ? session.group_until : session.critical_until);
		earliest(&deadline, session.let_go_until);
		earliest(&deadline, session_abandon_time());
	}
	return deadline;
}

bool session_armed(void)
{
	return session.state == FREEZING || session.state == FROZEN || (session.state == THAWING && !session.reported);
}
