/* See session-state.h: the session itself, its marker, and how it is let go. */
#define _GNU_SOURCE
#include "session-state.h"
#include "abandoned.h"
#include "mount-table.h"
#include "rcu.h"
#include "system.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

const char *const session_state_names[] = { "idle", "planned", "freezing", "frozen", "thawing" };
struct session session;
struct session_setup session_given;
uint64_t session_start_time;

static char marker_temporary[PATH_MAX_BYTES + 1];
static struct marker marker; /* as last written; paths belong to the workers */

static bool is_frozen(const struct worker_view *view)
{
	return view->ours && !view->thaw_done;
}

size_t session_frozen_count(void)
{
	size_t frozen = 0;

	EACH(i) {
		struct worker_view view = worker_look(session.fs[i].worker);

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

int session_mark(void)
{
	bool news = marker.critical_until != session.critical_until;
	size_t line = 0;
	int error;

	EACH(i) {
		const struct worker_identity *identity = worker_identity(session.fs[i].worker);
		struct worker_view view;
		struct marker_entry entry;

		if (!session.fs[i].marked)
			continue;
		view = worker_look(session.fs[i].worker);
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
	marker.critical_until = session.critical_until;
	error = marker_write(session_given.marker, marker_temporary, &marker);
	if (error != 0)
		marker.count = 0; /* so that the next call tries again */
	return error;
}

void session_mark_answers(uint64_t now)
{
	session.mark_due = now < session.mark_from;
	if (session.mark_due)
		return;
	session_mark();
	session.mark_from = deadline_after(clock_now(), MARK_EVERY_MS);
}

void session_marker_begin(void)
{
	marker.count = 0;
	marker.pid = getpid();
	marker.start_time = session_start_time;
	strcpy(marker.session, session.id);
	marker.critical_until = 0;
	rcu_read(marker.rcu, sizeof marker.rcu);
}

/* ---- the session's life ---- */

int session_init(const struct session_setup *given)
{
	session_given = *given;
	if (snprintf(marker_temporary, sizeof marker_temporary, "%s.new", session_given.marker) >=
	    (int)sizeof marker_temporary)
		return ENAMETOOLONG;
	session_start_time = process_start_time(getpid());
	memset(&session, 0, sizeof session);
	abandoned_init(session_given.marker, getpid(), session_start_time);
	return 0;
}

int session_room(void)
{
	size_t room = session.room == 0 ? 8 : 2 * session.room;
	struct planned *fs;
	struct marker_entry *entries;

	if (session.count < session.room)
		return 0;
	fs = realloc(session.fs, room * sizeof *fs);
	if (fs == NULL)
		return ENOMEM;
	session.fs = fs;
	entries = realloc(marker.entries, room * sizeof *entries);
	if (entries == NULL)
		return ENOMEM;
	marker.entries = entries;
	memset(entries + session.room, 0,
	       (room - session.room) * sizeof *entries); /* there before anything is frozen */
	session.room = room;
	return 0;
}

/* What is inside a call that may never return is kept track of. What may freeze was abandoned before. */
static void let_go(struct worker *worker)
{
	if (worker == NULL)
		return;
	if (worker_look(worker).inside == INSIDE_NOTHING)
		worker_close(worker);
	else
		abandon(worker, session.id);
}

void session_release(void)
{
	rcu_close();
	mounts_forget();
	EACH(i)
		let_go(session.fs[i].worker);
	let_go(session.opening);
	process_close(&session.holder_process);
	free(session.fs);
	free(marker.entries);
	marker.entries = NULL;
	marker.count = 0;
	memset(&session, 0, sizeof session);
}

void session_begin_thaw(void)
{
	session.state = THAWING;
	session.thaw_begun = 0;
	rcu_restore();
}

void session_drop_holder(bool kill)
{
	if (kill)
		process_kill(&session.holder_process);
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
	case PLANNED: session_release(); break;
	case FREEZING:
	case FROZEN: session_begin_thaw(); break;
	default:
		if (session.reported)
			session_release();
		break; /* else session_step() does, when all is thawed */
	}
}
