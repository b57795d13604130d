/*
 * Which process is meant, whether it has ended, and its end by force: with
 * pidfds where the kernel has them, and by start times where it has not.
 */
#ifndef FREEZER_PROCESS_H
#define FREEZER_PROCESS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* Field 22 of /proc/PID/stat; 0 if there is no such process. With its pid it names one process of this boot. */
uint64_t process_start_time(pid_t pid);

/* True if it was killed, or there is none: perhaps still inside the kernel, it will do nothing more by itself. */
bool process_is_ending(pid_t pid);

/*
 * A process of this boot: by pidfd where the kernel has one (5.3), else by its pid and start time. PID 0: none. Without
 * a pidfd it is killed by its pid, right after its start time was compared.
 */
struct process {
	pid_t pid;
	uint64_t start_time;
	int pidfd; /* -1: none */
};

/* False if there is no such process. */
bool process_find(pid_t pid, struct process *out);
/* The other end of SOCKET; its pidfd is the kernel's own where it has SO_PEERPIDFD (6.5). */
bool process_of_peer(int socket, struct process *out);
/* SIGKILL. */
void process_kill(const struct process *process);
/* True if within WAIT_MS every thread of it has ended, also those that were inside the kernel; or if it is none. */
bool process_ended(const struct process *process, int wait_ms);
void process_close(struct process *process);

#endif
