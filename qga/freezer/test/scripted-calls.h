/*
 * Filesystems that behave as a script says, for kernel_calls. They keep the
 * kernel's rules: EBUSY when frozen already, EINVAL when not frozen, and a
 * filesystem whose freeze was under way is frozen after it. A thaw that comes
 * while the freeze is under way is counted: it must never happen.
 */
#ifndef FREEZER_TEST_SCRIPTED_CALLS_H
#define FREEZER_TEST_SCRIPTED_CALLS_H

#include "worker.h"

enum scripted { SCRIPT_OPEN, SCRIPT_SYNC, SCRIPT_FREEZE, SCRIPT_THAW, SCRIPT_VERBS };

extern const struct kernel_calls scripted_calls;

/* Forgets all; makes COUNT filesystems, the directories SCRATCH/fs0 and so on. */
void script_reset(int count);
const char *script_path(int fs);
/* The call waits until script_let_go(). */
void script_hold(int fs, enum scripted verb);
void script_let_go(int fs, enum scripted verb);
/* The next TIMES calls answer ERROR and do nothing. */
void script_fail(int fs, enum scripted verb, int error, int times);
void script_thaw_by_stranger(int fs);
bool script_frozen(int fs);
/* Calls that have begun. */
int script_calls(int fs, enum scripted verb);
int script_thaws_during_freeze(void);
/* FITHAW of FS, which is held, returns while the next marker of one that is given up is being written. */
void script_let_go_while_marked(int fs);
/* What PATH's first byte was when the last freeze began; 0 if it could not be read. */
void script_watch(const char *path);
char script_seen(void);

#endif
