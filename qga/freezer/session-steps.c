/*
 * See session-state.h: what happens by itself, as threads answer and deadlines pass. What each deadline is for stands in
 * README.md, and the rules by which the guest always comes back in src/freeze/README.md.
 */
#define _GNU_SOURCE
#include "session-state.h"
#include "system.h"

static void expire(uint64_t now)
{
	uint64_t free_from = session.critical_until > now ? session.critical_until : now;

	session.expired = true;
	if (session.asked == FREEZING_ALL) {
		session_say_freeze_lines();
		connection_refuse(session.holder, "expired", "freeze: the lease ended at %llu, before all had answered",
				  ull(session.lease_until));
		session.asked = NOTHING;
	}
	connection_say(session.holder, "event expired %llu %llu", ull(session.first), ull(now));
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
		session_step_sync(now);
	if (session.state == PLANNED && now >= session.planned_until)
		session_drop_holder(true);
	if ((session.state == FREEZING || session.state == FROZEN) && now >= session.lease_until)
		expire(now);
	if (session.state == FREEZING)
		session_step_freezing(now);
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
