/* See rcu.h. */
#define _GNU_SOURCE
#include "rcu.h"
#include "marker.h"
#include "system.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int knob_fd = -1;
static char found_value[RCU_VALUE_MAX + 1]; /* "" when nothing has to be put back */

static bool says_something(const char *path)
{
	char line[256];
	char *at = line;

	if (!read_line(path, line, sizeof line))
		return false;
	while (*at == ' ')
		at++;
	/* Kernels with NO_HZ_FULL print "(null)" when it is not in use. */
	return *at != '\0' && strcmp(at, "(null)") != 0;
}

const char *rcu_left_alone(const char *knob, const char *cpu_directory)
{
	char path[PATH_MAX_BYTES + 32], line[32];
	const char *slash = strrchr(knob, '/');

	snprintf(path, sizeof path, "%.*srcu_normal", slash == NULL ? 0 : (int)(slash - knob) + 1, knob);
	if (read_line(path, line, sizeof line) && strtol(line, NULL, 0) != 0)
		return "rcu_normal is set";
	snprintf(path, sizeof path, "%s/isolated", cpu_directory);
	if (says_something(path))
		return "CPUs are isolated";
	snprintf(path, sizeof path, "%s/nohz_full", cpu_directory);
	if (says_something(path))
		return "CPUs run without a tick";
	return NULL;
}

void rcu_open(const char *knob)
{
	if (rcu_left_alone(knob, "/sys/devices/system/cpu") == NULL)
		knob_fd = open(knob, O_RDWR | O_CLOEXEC);
}

void rcu_read(char *found, size_t size)
{
	ssize_t got;

	found_value[0] = '\0';
	if (knob_fd >= 0) {
		got = pread(knob_fd, found_value, sizeof found_value - 1, 0);
		found_value[got > 0 ? got : 0] = '\0';
		found_value[strspn(found_value, "0123456789")] = '\0';
	}
	snprintf(found, size, "%s", found_value);
}

static void put(const char *value)
{
	/* Nothing can be done about a failure here: the freeze is slower, or the knob is not ours any more. */
	if (pwrite(knob_fd, value, strlen(value), 0) < 0)
		return;
}

void rcu_expedite(void)
{
	if (found_value[0] != '\0')
		put("1");
}

void rcu_restore(void)
{
	if (found_value[0] != '\0')
		put(found_value);
	found_value[0] = '\0';
}

void rcu_close(void)
{
	rcu_restore();
	if (knob_fd >= 0)
		close(knob_fd);
	knob_fd = -1;
}

void rcu_put_back(const char *knob, const char *value)
{
	int fd = value[0] == '\0' ? -1 : open(knob, O_WRONLY | O_CLOEXEC);

	if (value[0] != '\0' && (fd < 0 || write(fd, value, strlen(value)) < 0))
		fprintf(stderr, "freezer: cannot put %s back into %s: %s\n", value, knob, strerror(errno));
	if (fd >= 0)
		close(fd);
}
