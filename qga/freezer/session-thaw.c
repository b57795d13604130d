/* See session-state.h: how all is thawed, what of it is told, and what is given up. */
#define _GNU_SOURCE
#include "session-state.h"
#include "abandoned.h"
#include "system.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

/* Its FIFREEZE was given up and has not returned: its thaw is not waited for. */
static bool in_vain(size_t i)
{
	return session.fs[i].hung && !worker_look(session.fs[i].worker).freeze_done;
}

static uint64_t group_deadline(uint64_t now)
{
	uint64_t own = deadline_after(now, GROUP_THAW_MS), of_all = deadline_after(session.thaw_begun, GROUPS_THAW_MS);

	return own < of_all ? own : of_all;
}

/* Tells the threads, group by group, and says whether all is thawed. */
static bool advance_thaw(uint64_t now)
{
	bool all = true;

	if (session.thaw_begun == 0) {
		if (now < session.critical_until)
			return false;
		session.thaw_begun = now;
		session.group = session_last_group();
		session.group_until = 0;
	}
	for (;;) {
		bool group_done = true;

		if (session.group_until == 0)
			session.group_until = group_deadline(now);
		EACH(i) {
			if (!session_in_group(i))
				continue;
			worker_thaw(session.fs[i].worker);
			group_done = group_done && (in_vain(i) || worker_look(session.fs[i].worker).thaw_done);
		}
		if (!group_done && now < session.group_until)
			return false;
		if (!session_group_below(&session.group))
			break;
		session.group_until = 0;
	}
	session.group_until = NEVER;
	EACH(i)
		all = all && worker_look(session.fs[i].worker).thaw_done;
	return all;
}

static void say_thaw_lines(void)
{
	EACH(i) {
		struct worker_view view = worker_look(session.fs[i].worker);
		int error = view.thaw.error;

		if (!view.thaw_done && (error == 0 || error == EINVAL))
			error = ETIMEDOUT;
		connection_say(session.holder, "fs %zu thaw %d %llu %llu %d", i, error, ull(view.thaw.start),
			       ull(view.thaw.end), view.ours);
	}
}

/*
 * All are thawed but those whose FIFREEZE was given up. They are thawed when the kernel returns it, whenever that is:
 * nobody has to wait to be told so.
 */
static bool rest_is_thawed(void)
{
	EACH(i)
		if (!in_vain(i) && !worker_look(session.fs[i].worker).thaw_done)
			return false;
	return true;
}

/* Gives a marker of its own to each that the kernel does not let go, or to none of them. 0 or an errno. */
static int mark_rest(void)
{
	int error = 0;

	EACH(i)
		if (error == 0 && !worker_look(session.fs[i].worker).thaw_done)
			error = abandoned_mark(session.fs[i].worker, session.id);
	EACH(i)
		if (error != 0)
			abandoned_unmark(session.fs[i].worker);
	return error;
}

/* The last answer to `thaw`, which releases the session. */
static void answer(size_t hung)
{
	if (session.expired)
		connection_refuse(session.holder, "expired",
				  "thaw: the lease ended at %llu, all was thawed without being asked",
				  ull(session.lease_until));
	else if (hung == 0)
		connection_say(session.holder, "ok thaw");
	else
		connection_say(session.holder, "ok thaw %zu", hung);
}

static void answer_not_yet(const char *why)
{
	say_thaw_lines();
	connection_refuse(session.holder, "thaw", "thaw: not all is thawed%s; it goes on", why);
	session.asked = NOTHING;
	session.thaw_answered = true;
	/* It may want to know the end of it, but not for ever. */
	session.let_go_until = deadline_after(clock_now(), LINGER_MS);
	session.kill_on_let_go = false;
}

/*
 * The session ends without those that the kernel does not let go:
 *
 * 1. Each gets a marker of its own. If one cannot be written the session goes on, and this is tried again later.
 * 2. The kernel may let go of one meanwhile, and its thread thaws it: then it needs no marker and stays with the session.
 * 3. The others are given up (abandoned.h).
 * 4. The session's marker is removed. Until then they are named twice, and at no moment not at all.
 */
static void end_without_rest(uint64_t now)
{
	size_t hung = 0;

	if (mark_rest() != 0) {
		session.abandon_from = deadline_after(now, ABANDON_RETRY_MS);
		if (session.asked == THAWING_ALL)
			answer_not_yet(", and what hangs cannot be written down");
		return;
	}
	if (session.asked == THAWING_ALL)
		say_thaw_lines();
	EACH(i) {
		if (worker_look(session.fs[i].worker).thaw_done) {
			/* Thawed since it was marked. */
			abandoned_unmark(session.fs[i].worker);
			continue;
		}
		abandon(session.fs[i].worker, session.id);
		session.fs[i].worker = NULL;
		hung++;
	}
	unlink(session_given.marker);
	if (session.asked == THAWING_ALL)
		answer(hung);
	session_release();
}

void session_step_thaw(uint64_t now)
{
	bool all = advance_thaw(now);
	bool in_time = now < session.answer_by;
	/* All that hangs are freezes that were given up at their limit: there is nothing to wait for. */
	bool vain = session.gave_up && rest_is_thawed();

	if (all && !session.reported) {
		session.reported = true;
		unlink(session_given.marker);
		if (session.holder != NULL && session.expired) {
			say_thaw_lines();
			connection_say(session.holder, "event thawed expired");
		}
		if (session.holder != NULL && session.asked == NOTHING &&
		    (session.let_go_until == 0 || session.thaw_answered)) {
			session.let_go_until = deadline_after(now, LINGER_MS);
			session.kill_on_let_go = false;
		}
	}
	if (all && session.holder == NULL) {
		session_release();
	} else if (all && session.asked == THAWING_ALL) {
		if (!session.expired)
			say_thaw_lines();
		answer(0);
		session_release();
	} else if (session.asked == THAWING_ALL && (vain || (!in_time && session.thaw_answered))) {
		end_without_rest(now);
	} else if (session.asked == THAWING_ALL && !in_time) {
		answer_not_yet(" after 2 s");
	} else if (!all && session.holder == NULL && now >= session_abandon_time()) {
		end_without_rest(now);
	}
}

uint64_t session_abandon_time(void)
{
	uint64_t from;

	if (session.holder != NULL || session.thaw_begun == 0 || session.group_until != NEVER || session.reported)
		return NEVER;
	from = session.gave_up && rest_is_thawed() ? session.thaw_begun
						   : deadline_after(session.thaw_begun, THAW_ANSWER_MS);
	return from > session.abandon_from ? from : session.abandon_from;
}
