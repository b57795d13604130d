/*
 * Filesystems that a session has given up: the kernel has not returned a call on them, because their disk, or whatever
 * their mount point is reached by, does not answer. The session ends without them, later ones are refused them, and
 * their threads go on. One that may freeze, or is frozen, is thawed by its thread as soon as the kernel lets it. Until
 * then it has a marker of its own, so that it is found whatever becomes of this process (README.md, "What hangs").
 */
#ifndef FREEZER_ABANDONED_H
#define FREEZER_ABANDONED_H

#include "worker.h"

/* Their markers are made beside MARKER, under the pid and start time of this process. MARKER must stay. */
void abandoned_init(const char *marker, pid_t pid, uint64_t start_time);

/* Writes the marker of a filesystem that may freeze, if it has none yet. 0, or an errno: then do not abandon() it. */
int abandoned_mark(struct worker *worker, const char *session);
/* Removes that marker, if there is one. */
void abandoned_unmark(struct worker *worker);
/* Takes it over from its session, which has marked it if it may freeze. What has not begun is taken back. */
void abandon(struct worker *worker, const char *session);

/* After a wake-up: lets go of those whose call has returned and that are thawed, and removes their markers. */
void abandoned_step(void);

/* True if one of them is frozen, or may be when its call returns: if this process ended, nobody would thaw it. */
bool abandoned_armed(void);

/*
 * EBUSY, with the reason in TEXT, if the requested filesystem is one of them; else 0. A sync whose disk has completed
 * writes since this was last asked is slow, not hung, and does not count.
 */
int abandoned_holds(const struct request *request, const struct mount_kind *mount, char *text, size_t size);

/* CALL is open, sync, freeze or thaw; SINCE is on CLOCK_MONOTONIC. */
typedef void hung_taker(const char *call, uint64_t since, const char *session, const char *path, void *context);
void abandoned_each(hung_taker *take, void *context);

#endif
