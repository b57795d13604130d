/* See predecessor.h. */
#define _GNU_SOURCE
#include "predecessor.h"
#include "peer.h"
#include "process.h"
#include "resident.h"

#include <stdio.h>
#include <unistd.h>

enum { HELLO_MS = 1000 };

/*
 * A freezer that was killed inside a FIFREEZE which does not return still listens, and accepts nothing. Whoever has
 * looked for it filled its queue, so that connect() answers EAGAIN and the socket does not tell whose it is. Its marker
 * does.
 */
static void look_if_ending(const char *path, void *ending)
{
	static struct marker marker;
	char problem[PATH_MAX_BYTES + 256];

	if (marker_read(path, &marker, problem, sizeof problem) == 1 &&
	    process_start_time(marker.pid) == marker.start_time && process_is_ending(marker.pid))
		*(bool *)ending = true;
	marker_free(&marker);
}

static bool marked_one_is_ending(const char *marker)
{
	bool ending = false;

	look_if_ending(marker, &ending);
	markers_set_aside(marker, look_if_ending, &ending);
	return ending;
}

bool predecessor_is_gone(const struct thaw_job *job)
{
	pid_t pid;
	enum peer peer = peer_ask(job->socket, HELLO_MS, &pid);

	if (peer != PEER_ANSWERS && access(job->marker, F_OK) == 0) {
		if (thaw_marker(job) != 0)
			fail(job->marker, "not all that was marked is thawed; starting, and going on with it");
		peer = peer_ask(job->socket, HELLO_MS, &pid);
	}
	if (peer == PEER_SILENT && pid == 0 && marked_one_is_ending(job->marker))
		peer = PEER_NOBODY;
	if (peer == PEER_ANSWERS)
		fprintf(stderr, "freezer: already running, pid %d\n", (int)pid);
	else if (peer == PEER_SILENT)
		fprintf(stderr, "freezer: already running, pid %d, which does not answer: end it first\n", (int)pid);
	return peer == PEER_NOBODY;
}
