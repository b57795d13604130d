/* See process.h. */
#define _GNU_SOURCE
#include "process.h"
#include "system.h"

#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77
#endif

enum { LOOK_MS = 10 };

/* What follows the command name in /proc/PID/stat, or NULL; the name may hold spaces and brackets. */
static char *process_stat(pid_t pid, char *line, size_t size)
{
	char path[40], *at;

	snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
	if (!read_line(path, line, size))
		return NULL;
	at = strrchr(line, ')');
	return at == NULL ? NULL : at + 1;
}

bool process_is_ending(pid_t pid)
{
	char line[1024], *at = process_stat(pid, line, sizeof line);

	/* The main thread's state: it never waits in the kernel, and has ended when others may still be there. */
	return at == NULL || at[0] == '\0' || at[1] == 'Z' || at[1] == 'X';
}

uint64_t process_start_time(pid_t pid)
{
	char line[1024], *at = process_stat(pid, line, sizeof line);
	unsigned long long start;

	if (at == NULL ||
	    sscanf(at, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %*d %*d %llu", &start) !=
		    1)
		return 0;
	return start;
}

bool process_find(pid_t pid, struct process *out)
{
	/*
	 * The pidfd comes first. If its process ends then and another one takes the pid, the start time read below is
	 * that of the other one: then the pidfd tells that the process is gone. The other way round, a start time that was looked for would
	 * stand beside the pidfd of a stranger, who would be killed.
	 */
	*out = (struct process){ .pid = pid, .pidfd = (int)syscall(SYS_pidfd_open, pid, 0) };
	out->start_time = process_start_time(pid);
	if (out->start_time != 0)
		return true;
	process_close(out);
	return false;
}

bool process_of_peer(int socket, struct process *out)
{
	struct ucred peer;
	socklen_t size = sizeof peer;
	int fd = -1;

	*out = (struct process){ .pidfd = -1 };
	if (getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &peer, &size) < 0 || peer.pid <= 0 ||
	    !process_find(peer.pid, out))
		return false;
	size = sizeof fd;
	if (getsockopt(socket, SOL_SOCKET, SO_PEERPIDFD, &fd, &size) == 0 && fd >= 0) {
		if (out->pidfd >= 0)
			close(out->pidfd);
		out->pidfd = fd;
	}
	return true;
}

void process_kill(const struct process *process)
{
	if (process->pid <= 0)
		return;
	/* ESRCH: it has ended, and who has its pid by now is a stranger, even if the start time was read from him. */
	if (process->pidfd >= 0 &&
	    (syscall(SYS_pidfd_send_signal, process->pidfd, SIGKILL, NULL, 0) == 0 || errno == ESRCH))
		return;
	if (process_start_time(process->pid) == process->start_time)
		kill(process->pid, SIGKILL);
}

/* In /proc a process whose main thread has ended is a zombie, however many others are still inside the kernel. */
static bool only_thread(pid_t pid)
{
	char path[40];
	struct dirent *entry;
	int threads = 0;
	DIR *dir;

	snprintf(path, sizeof path, "/proc/%d/task", (int)pid);
	dir = opendir(path);
	if (dir == NULL)
		return errno == ENOENT;
	while ((entry = readdir(dir)) != NULL)
		threads += entry->d_name[0] != '.';
	closedir(dir);
	return threads <= 1;
}

static bool has_ended(const struct process *process)
{
	if (process_start_time(process->pid) != process->start_time)
		return true;
	return process_is_ending(process->pid) && only_thread(process->pid);
}

bool process_ended(const struct process *process, int wait_ms)
{
	struct pollfd poll_fd = { .fd = process->pidfd, .events = POLLIN };
	uint64_t until = deadline_after(clock_now(), (uint64_t)wait_ms);

	if (process->pid <= 0)
		return true;
	if (process->pidfd >= 0)
		return poll(&poll_fd, 1, wait_ms) == 1;
	while (!has_ended(process)) {
		if (clock_now() >= until)
			return false;
		nanosleep(&(struct timespec){ .tv_nsec = LOOK_MS * 1000000 }, NULL);
	}
	return true;
}

void process_close(struct process *process)
{
	if (process->pid > 0 && process->pidfd >= 0)
		close(process->pidfd);
	*process = (struct process){ .pidfd = -1 };
}
