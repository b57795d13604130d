/*
 * Filesystems that a dead freezer left frozen and that could not be thawed before this one serves: a disk that does not
 * answer must neither keep the guest from being frozen again nor be forgotten. Each has a thread that tries until it is
 * thawed. Until then the marker of the dead freezer is kept beside ours (README.md, "The marker").
 */
#ifndef FREEZER_LEFTOVERS_H
#define FREEZER_LEFTOVERS_H

#include "abandoned.h"

/*
 * Before anything is served: sets the marker at PATH aside if there still is one, and takes over all that were set
 * aside. WAKE is the eventfd of the loop. 0, or an errno: then PATH must not be written to.
 */
int leftovers_take(const char *path, const struct kernel_calls *calls, int wake);

/* After a wake-up: writes down what has been thawed since. */
void leftovers_step(void);

/*
 * EBUSY, with the reason in TEXT, if the requested filesystem may still be frozen by a dead freezer: it would be thawed
 * under a session's feet. Else 0.
 */
int leftovers_hold(const struct request *request, char *text, size_t size);

/* Calls TAKE for each that is not thawed yet. */
void leftovers_each(hung_taker *take, void *context);

#endif
