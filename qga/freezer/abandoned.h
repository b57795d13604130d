/*
 * What sessions have given up: the kernel has not returned a call on it, since
 * its disk, or whatever its mount point is reached by, does not answer. It
 * stands in nobody's way: its session ends without it, later ones are refused
 * it, and its thread goes on. One that may freeze, or is frozen, is thawed by
 * that thread as soon as the kernel lets it, and has a marker of its own until
 * then, so that it is found whatever becomes of this process (README.md,
 * "What hangs").
 */
#ifndef FREEZER_ABANDONED_H
#define FREEZER_ABANDONED_H

#include "worker.h"

/* The markers lie beside MARKER, whose holder's pid and start time these are. */
void abandoned_init(const char *marker, pid_t pid, uint64_t start_time);

/*
 * Gives one that may freeze a marker of its own, if it has none. 0 or an errno: then it must not be abandoned.
 */
int abandoned_mark(struct worker *worker, const char *session);
void abandoned_unmark(struct worker *worker);
/* Takes it over from its session, which has told it to thaw, and has it marked, if it may freeze. */
void abandon(struct worker *worker, const char *session);

/* After a wake-up: lets go of those that have returned, and are thawed. */
void abandoned_step(void);

/* One of them may be frozen, now or when its call returns: if this process ended, nobody would thaw it. */
bool abandoned_armed(void);

/*
 * It is one of these: an errno, with the reason in TEXT; else 0. A sync whose disk has done writes since it was last
 * asked for is slow, not hung.
 */
int abandoned_holds(const struct request *request, const struct mount_kind *mount, char *text, size_t size);

/* CALL is open, sync, freeze or thaw; SINCE is on CLOCK_MONOTONIC. */
typedef void hung_taker(const char *call, uint64_t since, const char *session, const char *path, void *context);
void abandoned_each(hung_taker *take, void *context);

#endif
