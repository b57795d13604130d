/*
 * Threads that may be inside the kernel for ever: one for each filesystem (worker.h) and for each leftover
 * (leftovers.h). Nobody joins them, no signal is delivered to them, and their stacks are small.
 */
#ifndef FREEZER_THREAD_H
#define FREEZER_THREAD_H

/*
 * Runs RUN(ARGUMENT) on a thread of its own. 0, or the errno of pthread_create(): then RUN is not called.
 */
int thread_start(void *(*run)(void *), void *argument);

#endif
