/*
 * One entry of a marker (marker.h): where the filesystem that it names is mounted now, and one try at thawing it.
 * Who tries again, and for how long, is thaw-marked.c and leftovers.c.
 */
#ifndef FREEZER_THAW_ENTRY_H
#define FREEZER_THAW_ENTRY_H

#include "process.h"
#include "worker.h"

/*
 * Tries once. 0: it is thawed. EINVAL: it was not frozen, and will not be. ETIMEDOUT: OLD, the process that was to
 * freeze it, is still inside the kernel and may freeze it. Any other errno: what went wrong. OLD may be none.
 */
int thaw_entry(const struct marker_entry *entry, const struct kernel_calls *calls, const struct process *old);

/*
 * Waits for the end of the critical section that a marker names (README.md, "The marker"): nothing may be thawed inside
 * it. At most CRITICAL_LONGEST_MS. False if there was nothing to wait for.
 */
bool thaw_after_section(uint64_t critical_until);

#endif
