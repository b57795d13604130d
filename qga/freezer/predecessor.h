/* The freezer that served before this one: what it left is thawed, and if it still serves, this one does not start. */
#ifndef FREEZER_PREDECESSOR_H
#define FREEZER_PREDECESSOR_H

#include "thaw-marked.h"

/*
 * Thaws what the marker names, unless a freezer answers on the socket. False after saying on stderr which process
 * serves the socket; true if none does: then what could not be thawed is still marked.
 */
bool predecessor_is_gone(const struct thaw_job *job);

#endif
