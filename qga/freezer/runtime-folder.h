/* The folder that socket and marker lie in, /run/fsfreeze-bridge: in memory, ours, and locked while one starts. */
#ifndef FREEZER_RUNTIME_FOLDER_H
#define FREEZER_RUNTIME_FOLDER_H

#include <stdbool.h>

/*
 * The folder of PATH, made if it is missing. It must be on tmpfs or ramfs, and nobody but root or this user may write
 * to it; ANY: for tests, it need not be so. The descriptor, or -1 after saying why on stderr.
 */
int runtime_folder_open(const char *path, bool any);

/*
 * Keeps two freezers that start at once apart; FOLDER is unlocked when this one serves, so that a freezer stuck in
 * the kernel blocks no successor. Waits for another one up to 15 s; then false, after saying so on stderr.
 */
bool runtime_folder_lock(int folder);

#endif
