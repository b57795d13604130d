/* See heartbeat.h. */
#define _GNU_SOURCE
#include "heartbeat.h"
#include "notify.h"

#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <time.h>
#include <unistd.h>

static int64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * INT64_C(1000) + now.tv_nsec / 1000000;
}

void heartbeat(int in, unsigned period_ms, unsigned hold_at_most_ms)
{
	struct pollfd input = { .fd = in, .events = POLLIN };
	int64_t held_until = 0;
	char letters[64];

	for (;;) {
		bool held = now_ms() < held_until;
		ssize_t count;

		if (poll(&input, 1, held ? (int)period_ms : -1) < 0 && errno != EINTR)
			return;
		if (input.revents == 0) {
			/* A word that is lost is made good by the next one. */
			if (now_ms() < held_until)
				notify_manager("WATCHDOG=1");
			continue;
		}
		count = read(in, letters, sizeof letters);
		if (count < 0 && errno == EINTR)
			continue;
		if (count <= 0)
			return;
		for (ssize_t at = 0; at < count; at++) {
			if (letters[at] == HEARTBEAT_HOLDS)
				held_until = now_ms() + hold_at_most_ms;
			else if (letters[at] == HEARTBEAT_RELEASED)
				held_until = 0;
		}
		notify_manager("WATCHDOG=1");
	}
}
