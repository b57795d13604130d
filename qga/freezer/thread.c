/* See thread.h. */
#define _GNU_SOURCE
#include "thread.h"

#include <pthread.h>
#include <signal.h>

/* A page of a stack that was touched once stays locked in memory: keep it small. Sanitizers need more. */
#ifndef THREAD_STACK
#define THREAD_STACK (32 * 1024)
#endif

int thread_start(void *(*run)(void *), void *argument)
{
	pthread_attr_t attributes;
	pthread_t thread;
	sigset_t every, before;
	int error;

	/* The thread inherits the mask: signals are the main thread's, which reads them from its signalfd. */
	sigfillset(&every);
	pthread_attr_init(&attributes);
	pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
	pthread_attr_setstacksize(&attributes, THREAD_STACK);
	pthread_sigmask(SIG_SETMASK, &every, &before);
	error = pthread_create(&thread, &attributes, run, argument);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	pthread_attr_destroy(&attributes);
	return error;
}
