/*
 * Stands guard over the loop-mounted filesystems of an integration test, inside
 * its private mount namespace, and keeps that namespace alive. Started before
 * anything can freeze:
 *
 *   thaw-guard SECONDS MOUNTPOINT...
 *
 * It refuses (exit 3) if its mount table shows any block filesystem that is not
 * one of the given mount points on a loop device (btrfs: whose source is one). It opens the mount points,
 * prints `ready`, and thaws all of them when SECONDS are over or its stdin ends,
 * whatever happened to the test. On stdin it also plays the stranger:
 * `freeze N` and `thaw N`, answered by the errno.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum { POINTS_MAX = 16, LOOP_MAJOR = 7 };

static int points[POINTS_MAX];
static int count;

static int only_our_loops(char **names)
{
	FILE *file = fopen("/proc/self/mountinfo", "re");
	char line[8192], point[4096], type[64], source[256];
	unsigned major_number;
	int loops = 0;

	if (file == NULL)
		return 0;
	while (fgets(line, sizeof line, file) != NULL) {
		char *dash = strstr(line, " - ");
		int ours = 0;

		if (dash == NULL || sscanf(line, "%*u %*u %u:%*u %*s %4095s", &major_number, point) != 2 ||
		    sscanf(dash, " - %63s %255s", type, source) != 2)
			return 0;
		for (int i = 0; i < count; i++)
			ours |= strcmp(point, names[i]) == 0;
		/* Anonymous devices have major 0; btrfs has one too, so its type is looked at. */
		if (major_number == 0 && strcmp(type, "btrfs") != 0)
			continue;
		if (!ours || (major_number == 0 ? strncmp(source, "/dev/loop", 9) != 0 : major_number != LOOP_MAJOR)) {
			fprintf(stderr, "thaw-guard: refusing: %s is a block filesystem and not a loop of this test\n", point);
			return 0;
		}
		loops++;
	}
	fclose(file);
	return loops == count;
}

static void thaw_all(void)
{
	/* Until EINVAL: a FIFREEZE on its way may freeze after a first thaw. */
	for (int round = 0; round < 20; round++) {
		for (int i = 0; i < count; i++)
			while (ioctl(points[i], FITHAW, 0) == 0)
				;
		usleep(10000);
	}
}

static void obey(char *line)
{
	int index;
	char verb[8];

	if (sscanf(line, "%7s %d", verb, &index) != 2 || index < 0 || index >= count) {
		puts("unknown");
		return;
	}
	printf("%d\n", ioctl(points[index], strcmp(verb, "freeze") == 0 ? FIFREEZE : FITHAW, 0) < 0 ? errno : 0);
}

int main(int words, char **word)
{
	char line[64];
	time_t until; /* a guard over tests: the wall clock is good enough */

	count = words - 2;
	if (count < 1 || count > POINTS_MAX || atoi(word[1]) < 1)
		return 2;
	mlockall(MCL_CURRENT | MCL_FUTURE);
	setvbuf(stdout, NULL, _IOLBF, 0);
	if (!only_our_loops(word + 2))
		return 3;
	for (int i = 0; i < count; i++) {
		points[i] = open(word[i + 2], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		if (points[i] < 0)
			return 4;
	}
	until = time(NULL) + atoi(word[1]);
	puts("ready");
	for (;;) {
		struct pollfd in = { .fd = 0, .events = POLLIN };
		time_t left = until - time(NULL);
		ssize_t got;

		if (left <= 0 || poll(&in, 1, (int)left * 1000) < 0)
			break;
		if (in.revents == 0)
			continue;
		got = read(0, line, sizeof line - 1); /* one command at a time: the test waits for each answer */
		if (got <= 0)
			break;
		line[got] = '\0';
		obey(line);
	}
	thaw_all();
	return 0;
}
