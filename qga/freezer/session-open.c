/* See session-state.h: how the filesystem that `fs` names is opened, and why it may be refused. */
#define _GNU_SOURCE
#include "session-state.h"
#include "abandoned.h"
#include "leftovers.h"
#include "system.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static void refuse_filesystem(struct connection *to, int error, const char *text)
{
	char word[4 * 256];

	connection_say(to, "error fs %d %s", error, word_escape(text, word, sizeof word));
}

void session_open(struct connection *from, const struct request *request)
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

static bool find_device(uint64_t device, size_t *at)
{
	EACH(i)
		if (worker_identity(session.fs[i].worker)->device == device) {
			*at = i;
			return true;
		}
	return false;
}

void session_step_open(uint64_t now)
{
	struct worker *worker = session.opening;
	struct worker_view view = worker_look(worker);
	char text[256] = "";
	int error = view.open_error;
	size_t same;

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
	if (error != 0) {
		snprintf(text, sizeof text, "%s", worker_problem(worker));
	} else if (find_device(worker_identity(worker)->device, &same)) {
		snprintf(text, sizeof text, "fs: its device is planned already, at index %zu", same);
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
