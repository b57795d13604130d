/*
 * Tells the service manager that the agent lives (WatchdogSec=): Node has no
 * datagram sockets, and a program started for each word would be started while
 * the guest is frozen, too. So this one is started once, as the agent's child.
 */
#ifndef FREEZER_HEARTBEAT_H
#define FREEZER_HEARTBEAT_H

/*
 * What the agent writes to IN. While it holds the guest nothing is expected of
 * it, but not for longer than the time it gave: what ends it then must not come
 * in the way of a thaw.
 */
enum { HEARTBEAT_ALIVE = '.', HEARTBEAT_HOLDS = 'h', HEARTBEAT_RELEASED = 'r' };

/* Returns when IN ends, which is when the agent has ended. */
void heartbeat(int in, unsigned period_ms, unsigned hold_at_most_ms);

#endif
