/* See session-state.h: the order of the groups, which freeze from the first one up and thaw from the last one down. */
#define _GNU_SOURCE
#include "session-state.h"

static uint64_t group_of(size_t i)
{
	return worker_identity(session.fs[i].worker)->group;
}

bool session_in_group(size_t i)
{
	return group_of(i) == session.group;
}

uint64_t session_first_group(void)
{
	uint64_t first = NEVER;

	EACH(i)
		if (group_of(i) < first)
			first = group_of(i);
	return first;
}

uint64_t session_last_group(void)
{
	uint64_t last = 0;

	EACH(i)
		if (group_of(i) > last)
			last = group_of(i);
	return last;
}

bool session_group_above(uint64_t *group)
{
	bool found = false;
	uint64_t lowest = 0;

	EACH(i)
		if (group_of(i) > *group && (!found || group_of(i) < lowest)) {
			lowest = group_of(i);
			found = true;
		}
	if (found)
		*group = lowest;
	return found;
}

bool session_group_below(uint64_t *group)
{
	bool found = false;
	uint64_t highest = 0;

	EACH(i)
		if (group_of(i) < *group && (!found || group_of(i) > highest)) {
			highest = group_of(i);
			found = true;
		}
	if (found)
		*group = highest;
	return found;
}
