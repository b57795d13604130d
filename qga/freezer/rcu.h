/*
 * FIFREEZE waits for RCU grace periods, not for the disk, when little is dirty.
 * The knob /sys/kernel/rcu_expedited hurries them, at the price of interrupts
 * to all CPUs: only for the moment of the freeze, and only where nobody minds.
 */
#ifndef FREEZER_RCU_H
#define FREEZER_RCU_H

#include <stddef.h>

/* Why the knob must be left alone, in words, or NULL. Reads rcu_normal beside it, and isolated and nohz_full. */
const char *rcu_left_alone(const char *knob, const char *cpu_directory);

/* Opens the knob if it may be turned. The rest does nothing where it was not opened. */
void rcu_open(const char *knob);
/* What stands there now, to be put back; "" if the knob is left alone. */
void rcu_read(char *found, size_t size);
void rcu_expedite(void);
/* Puts back what was found. May be repeated. */
void rcu_restore(void);
/* Restores, and closes. */
void rcu_close(void);

/* For a process that has not opened the knob: writes VALUE to it, unless VALUE is "". Says on stderr if it cannot. */
void rcu_put_back(const char *knob, const char *value);

#endif
