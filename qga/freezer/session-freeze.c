/* See session-state.h: how all are synced and frozen, group by group, what is told of it, and when it is given up. */
#define _GNU_SOURCE
#include "session-state.h"
#include "rcu.h"
#include "system.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

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
	connection_say(session.holder, "fs %zu sync %d %llu %llu", i, error, ull(sync->start), ull(sync->end));
}

void session_step_sync(uint64_t now)
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

void session_say_freeze_lines(void)
{
	EACH(i) {
		struct worker_view view = worker_look(session.fs[i].worker);

		if (!view.freeze_done)
			continue;
		if (session.fs[i].sync_late && view.sync.end != 0)
			say_sync_line(i, view.sync_error, &view.sync);
		connection_say(session.holder, "fs %zu freeze %d %llu %llu", i, view.freeze.error,
			       ull(view.freeze.start), ull(view.freeze.end));
	}
}

/*
 * The kernel has not returned a FIFREEZE within the limit: the attempt ends here. What is frozen is thawed without
 * waiting for the holder, and what hangs is thawed when the kernel returns it.
 */
static void give_up(uint64_t now)
{
	char who[256] = "";
	uint64_t soon = deadline_after(now, LET_GO_MS);

	session_say_freeze_lines();
	EACH(i) {
		struct worker_view view = worker_look(session.fs[i].worker);
		size_t used = strlen(who);

		if (!session_in_group(i) || view.freeze_done)
			continue;
		session.fs[i].hung = true;
		connection_say(session.holder, "fs %zu freeze %d %llu 0", i, ETIMEDOUT, ull(view.freeze.start));
		snprintf(who + used, sizeof who - used, "%s%s", used == 0 ? "" : ", ",
			 worker_identity(session.fs[i].worker)->path);
	}
	connection_refuse(session.holder, "freeze",
			  "freeze: not frozen within %llu ms, given up, the rest is thawed: %s", ull(session.limit_ms),
			  who);
	session.asked = NOTHING;
	session.gave_up = true;
	/* The holder is waited for as long as it may hold its writers, and no longer. */
	session.let_go_until = session.lease_until > soon ? session.lease_until : soon;
	session.kill_on_let_go = true;
	session_begin_thaw();
}

void session_step_freezing(uint64_t now)
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
		if (!session_group_above(&session.group))
			break;
		session_freeze_group();
	}
	session.state = FROZEN;
	session.asked = NOTHING;
	EACH(i)
		refused = refused || !worker_look(session.fs[i].worker).ours;
	/*
	 * One was refused: perhaps a stranger has frozen it (EBUSY). The marker still says `intended`, and if this process
	 * died now, a successor would thaw what the stranger froze. So this is written before the holder is told. In any
	 * other case it has time.
	 */
	if (refused)
		session_mark();
	session_say_freeze_lines();
	connection_say(session.holder, "ok freeze %zu %llu %llu", session_frozen_count(), ull(session.first),
		       ull(session.lease_until));
	/* Everything stands still until the holder knows. What is left has time: `intended` is thawed as `frozen` is. */
	connection_flush(session.holder);
	rcu_restore();
}
