/*
 * One filesystem and its thread. It is opened, synced, frozen and thawed by its
 * own thread alone, one after the other. From that follows what matters most: a
 * thaw wanted while FIFREEZE has not returned happens right after it returned
 * (the kernel would answer EINVAL before, and the filesystem would be frozen
 * after it), and a filesystem that does not answer holds up no other.
 *
 * All functions are for the main thread and none of them waits for a thread.
 */
#ifndef FREEZER_WORKER_H
#define FREEZER_WORKER_H

#include "marker.h"
#include "mount-table.h"

#include <stdbool.h>

/* The calls, 0 or an errno. Replaced by scripts in the tests. */
struct kernel_calls {
	/* Before it is opened, by the main thread: what the mount table says of it, or why it never is. */
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
	enum inside inside; /* the call that its thread is in */
	uint64_t since;     /* when it began */
	bool open_done, sync_done, freeze_done, thaw_done;
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

/* Of abandoned.c, which keeps it here: nothing is allocated when something hangs. */
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

void worker_sync(struct worker *worker);
/* Takes back a sync that has not begun: FIFREEZE syncs, and one of what is frozen may wait for its thaw. */
void worker_freeze(struct worker *worker);
/* Gives FIFREEZE the answer ERROR without calling it. */
void worker_refuse(struct worker *worker, int error);
/* Takes back a freeze that has not begun, and thaws what FIFREEZE froze or is about to freeze. May be repeated. */
void worker_thaw(struct worker *worker);
struct worker_view worker_look(struct worker *worker);

/* Lets go of it: the thread ends, at the latest when its call returns, and frees everything. */
void worker_close(struct worker *worker);

/* Threads that have not ended, those let go included. */
unsigned workers_alive(void);

#endif
