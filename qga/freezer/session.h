/*
 * The one session of the machine, as the server sees it: what it answers, and when it wants to be woken. Driven by the
 * main thread alone; nothing in here waits. The server calls session_step() after every wake-up and sleeps until
 * session_deadline(). How the session works is session-state.h and the files that it names.
 */
#ifndef FREEZER_SESSION_H
#define FREEZER_SESSION_H

#include "worker.h"

struct connection;

struct session_setup {
	const struct kernel_calls *calls;
	const char *marker;
	const char *rcu_knob; /* beside it lies rcu_normal */
	bool kill_holders;
	int wake; /* eventfd the workers write to */
};

/* Keeps what SETUP points to. 0 or an errno. */
int session_init(const struct session_setup *setup);

/* Answers the request, now or when it is done. */
void session_request(struct connection *from, const struct request *request);

/* False if this request has to wait until what its connection asked for before is answered. */
bool session_takes(const struct connection *from, enum verb verb);

/* FROM has been dropped. If it held the session, a plan is forgotten, and what is frozen is thawed. */
void session_gone(const struct connection *from);
/* True if something has moved, so that a request that had to wait may be taken now. */
bool session_step(void);

/* When session_step() has something to do without being woken; UINT64_MAX: never. */
uint64_t session_deadline(void);

/* True if something is frozen, is about to be, or is not yet known to be thawed. */
bool session_armed(void);

#endif
