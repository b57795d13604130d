/*
 * One filesystem and its thread. The thread alone opens, syncs, freezes and thaws it, one after the other. What matters
 * most follows from that. With another thread for FITHAW this could happen:
 *
 * 1. FIFREEZE is under way, on a slow disk.
 * 2. A thaw is wanted, since the lease has ended. FITHAW answers EINVAL: nothing is frozen yet.
 * 3. FIFREEZE returns. The filesystem is frozen, after its thaw, and nobody thaws it.
 *
 * Here the thaw is noted while FIFREEZE is under way, and the thread calls FITHAW right after it has returned. And a
 * filesystem that does not answer holds up no other.
 *
 * All functions are for the main thread, and none of them waits for a thread.
 */
#ifndef FREEZER_WORKER_H
#define FREEZER_WORKER_H

#include "marker.h"
#include "mount-table.h"

#include <stdbool.h>

/* The calls on filesystems; each answers 0 or an errno. The tests put scripts in their place. */
struct kernel_calls {
	/* By the main thread, before it is opened: what the mount table says of it, or in TEXT why it is never opened. */
	int (*check)(const struct request *request, struct mount_kind *mount, char *text, size_t size);
	/* Opens the mount point and compares it with the request; the reason in TEXT if it is not the one meant. */
	int (*open)(const struct request *request, int *fd, uint64_t *device, char *text, size_t size);
	int (*freeze)(int fd);
	int (*thaw)(int fd);
	int (*sync)(int fd);
};
extern const struct kernel_calls real_calls;

struct answer {
	int error;           /* 0 or an errno */
	uint64_t start, end; /* CLOCK_MONOTONIC; END is 0 while it runs */
};

enum inside { INSIDE_NOTHING, INSIDE_OPEN, INSIDE_SYNC, INSIDE_FREEZE, INSIDE_THAW };

/* What is known of a filesystem at one moment. */
struct worker_view {
	enum inside inside;                                /* the call that its thread is in */
	uint64_t since;                                    /* when it began */
	bool open_done, sync_done, freeze_done, thaw_done; /* answered */
	int open_error;
	struct answer sync, freeze, thaw;
	int sync_error;  /* first error of its syncs: the kernel tells of a lost write once */
	bool ours;       /* FIFREEZE returned 0: FITHAW is ours to call */
	bool may_freeze; /* FIFREEZE was called, or is about to be, and it is not known to be thawed */
};

struct worker;

/* What `fs` named; fixed once opened. */
struct worker_identity {
	uint32_t group;
	uint64_t mount_id;
	uint32_t major, minor;     /* as requested: 0:0 if only the mount id counts */
	uint64_t superblock, disk; /* in the mount table; 0: not known */
	uint64_t device;           /* st_dev, once it is open */
	char *path;
};

/* What abandoned.c keeps of it. It stands here because nothing is allocated when something hangs. */
struct abandoned {
	struct worker *worker;
	struct abandoned *next;
	char session[ID_MAX_BYTES + 1];
	unsigned number;   /* of its marker; 0: it cannot freeze, and has none */
	uint64_t progress; /* of its disk, when last asked */
};

/*
 * Starts the thread, which opens the mount point and compares it with the request: see `open_done`. WAKE is an eventfd,
 * written after every answer. NULL with `error` (an errno).
 */
struct worker *worker_open(const struct request *request, const struct mount_kind *mount,
			   const struct kernel_calls *calls, int wake, int *error);
const struct worker_identity *worker_identity(const struct worker *worker);
/* Why it could not be opened. */
const char *worker_problem(const struct worker *worker);
struct abandoned *worker_abandoned(struct worker *worker);

/* Tells it to sync. */
void worker_sync(struct worker *worker);
/*
 * Tells it to freeze. A sync that has not begun is taken back: FIFREEZE syncs, and a sync of what is frozen may wait for
 * its thaw.
 */
void worker_freeze(struct worker *worker);
/* Gives FIFREEZE the answer ERROR without calling it. */
void worker_refuse(struct worker *worker, int error);
/*
 * Tells it to thaw what FIFREEZE has frozen or is about to freeze; a freeze or sync that has not begun is taken back.
 * May be repeated.
 */
void worker_thaw(struct worker *worker);
struct worker_view worker_look(struct worker *worker);

/* Lets go of it: the thread ends when its call has returned, and frees everything. */
void worker_close(struct worker *worker);

/* Threads that have not ended, those let go included. */
unsigned workers_alive(void);

#endif
