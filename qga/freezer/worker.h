/*
 * One filesystem and its thread. FIFREEZE, FITHAW and syncfs of a filesystem
 * are called by its own thread alone, one after the other. From that follows
 * what matters most: a thaw wanted while FIFREEZE has not returned happens
 * right after it returned (the kernel would answer EINVAL before, and the
 * filesystem would be frozen after it), and a filesystem that does not answer
 * holds up no other.
 *
 * All functions are for the main thread and none of them waits for a thread,
 * but worker_open() (until its thread runs).
 */
#ifndef FREEZER_WORKER_H
#define FREEZER_WORKER_H

#include "marker.h"

#include <stdbool.h>

/* The calls, 0 or an errno. Replaced by scripts in the tests. */
struct kernel_calls {
	/* Opens the mount point and compares it with the request; the reason in TEXT if it is not the one meant. */
	int (*open)(const struct request *request, int *fd, uint64_t *device, char *text, size_t size);
	int (*freeze)(int fd);
	int (*thaw)(int fd);
	int (*sync)(int fd);
};
extern const struct kernel_calls real_calls;

struct answer {
	int error; /* 0 or an errno */
	uint64_t start, end; /* CLOCK_MONOTONIC; END is 0 while it runs */
};

/* What is known of a filesystem at one moment. */
struct worker_view {
	bool busy;                /* its thread is inside a call */
	bool sync_done, freeze_done, thaw_done;
	struct answer sync, freeze, thaw;
	int sync_error;           /* first error of its syncs: the kernel tells of a lost write once */
	bool ours;                /* FIFREEZE returned 0: FITHAW is ours to call */
};

struct worker;

/* What `fs` named; fixed once opened. */
struct worker_identity {
	uint32_t group;
	uint64_t mount_id;
	uint32_t major, minor; /* as requested: 0:0 if only the mount id counts */
	uint64_t device;       /* st_dev */
	char *path;
};

/*
 * Opens the mount point, compares it with the request and starts the thread.
 * WAKE is an eventfd, written after every answer. NULL with `error` (an errno)
 * and the reason in `text`.
 */
struct worker *worker_open(const struct request *request, const struct kernel_calls *calls, int wake,
			   int *error, char *text, size_t size);
const struct worker_identity *worker_identity(const struct worker *worker);

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
