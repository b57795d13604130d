/* See resident.h. */
#define _GNU_SOURCE
#include "notify.h"
#include "resident.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef PR_SET_IO_FLUSHER
#define PR_SET_IO_FLUSHER 57
#endif
#ifndef SYS_close_range
#define SYS_close_range 436
#endif

void fail(const char *what, const char *why)
{
	fprintf(stderr, "freezer: %s: %s\n", what, why);
}

void close_inherited(void)
{
	struct dirent *entry;
	DIR *dir;

	if (syscall(SYS_close_range, 3u, ~0u, 0u) == 0)
		return;
	/* Before Linux 5.9. */
	dir = opendir("/proc/self/fd");
	while (dir != NULL && (entry = readdir(dir)) != NULL) {
		int fd = atoi(entry->d_name);

		if (fd > 2 && fd != dirfd(dir))
			close(fd);
	}
	if (dir != NULL)
		closedir(dir);
}

static bool lock_memory(void)
{
	/*
	 * What is mapped by now is locked whole; what is mapped later, the stacks of threads, only where it is touched: the
	 * rest of 32 KB each would be locked for nothing. A thread touches all that it needs when it opens its filesystem.
	 */
	if (mlockall(MCL_CURRENT) == 0 && mlockall(MCL_FUTURE | MCL_ONFAULT) == 0)
		return true;
	return false;
}

/* As many as the limit allows: each filesystem needs one. */
static void take_all_descriptors(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
		return;
	limit.rlim_cur = limit.rlim_max;
	setrlimit(RLIMIT_NOFILE, &limit);
}

bool become_resident(bool locked)
{
	int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);

	if (fd >= 0) {
		/* Not permitted in some containers; then it is as mortal as the rest. */
		if (write(fd, "-1000", 5) < 0)
			fail("oom_score_adj", strerror(errno));
		close(fd);
	}
	/*
	 * What the kernel allocates for us (a page of the marker, a socket buffer) must not wait for a filesystem
	 * that we froze to take dirty pages. Threads inherit it. Linux 5.6; a help, not a condition.
	 */
	prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0);
	/* Applications wait for it, so it goes first; it computes nothing. Threads inherit this. A help, too. */
	setpriority(PRIO_PROCESS, 0, -20);
	take_all_descriptors();
	/* No heap of its own for a thread: it would be locked, and most of it never used. */
	mallopt(M_ARENA_MAX, 1);
	if (lock_memory() || !locked)
		return true;
	fail("mlockall", strerror(errno));
	return false;
}

int arrange_signals(void)
{
	sigset_t stop;

	signal(SIGPIPE, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
	signal(SIGCHLD, SIG_IGN);
	sigemptyset(&stop);
	sigaddset(&stop, SIGTERM);
	sigaddset(&stop, SIGINT);
	sigprocmask(SIG_BLOCK, &stop, NULL);
	return signalfd(-1, &stop, SFD_CLOEXEC | SFD_NONBLOCK);
}

void notify_ready(void)
{
	if (notify_manager("READY=1") < 0)
		fail("NOTIFY_SOCKET", strerror(errno));
}

int go_into_background(void)
{
	int pipes[2];
	unsigned char status = 1;
	pid_t child;

	if (pipe2(pipes, O_CLOEXEC) < 0 || (child = fork()) < 0) {
		fail("fork", strerror(errno));
		exit(1);
	}
	if (child > 0) {
		close(pipes[1]);
		if (read(pipes[0], &status, 1) != 1)
			status = 1;
		_exit(status);
	}
	close(pipes[0]);
	setsid();
	return pipes[1];
}

void tell(int parent, unsigned char status)
{
	if (parent >= 0 && write(parent, &status, 1) == 1)
		close(parent);
}

void drop_stdio(void)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	for (int fd = 0; null >= 0 && fd < 3; fd++)
		dup2(null, fd);
	if (null > 2)
		close(null);
}
