/* What a dead freezer left, taken over: kept apart, tried until it is thawed, and never in a session's way. */
#define _GNU_SOURCE
#include "leftovers.h"
#include "check.h"
#include "scripted-calls.h"
#include "system.h"
#include "thaw-marked.h"

#include <errno.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

static char marker_path[256], temporary[300], aside[300], nobody[256];

static uint64_t mount_id(void)
{
	int fd = open_mount_point(scratch);
	uint64_t id = mount_id_of(fd);

	CHECK(fd >= 0 && id != 0);
	close(fd);
	return id;
}

static void freeze(int fs)
{
	int fd = open_mount_point(script_path(fs));

	CHECK(fd >= 0 && scripted_calls.freeze(fd) == 0);
	close(fd);
}

/* The marker of a freezer that is dead: there is no such pid. */
static void leave(int filesystems)
{
	static struct marker marker;
	static struct marker_entry entries[8];

	marker = (struct marker){ .pid = 4194303, .start_time = 7, .session = "of a dead one", .entries = entries };
	for (int i = 0; i < filesystems; i++) {
		freeze(i);
		marker.entries[marker.count++] =
			(struct marker_entry){ MARKED_FROZEN, mount_id(), 0, 0, (char *)(uintptr_t)script_path(i) };
	}
	CHECK(marker_write(marker_path, temporary, &marker) == 0);
}

static int left_in(const char *path)
{
	static struct marker in;
	char problem[512];
	int left = 0;

	if (marker_read(path, &in, problem, sizeof problem) != 1)
		return -1;
	CHECK(strcmp(in.session, "of a dead one") == 0);
	for (size_t i = 0; i < in.count; i++)
		left += in.entries[i].state == MARKED_FROZEN;
	marker_free(&in);
	return left;
}

static bool holds(int fs)
{
	struct request request = { .mount_id = 1, .path = script_path(fs) };
	char text[256];

	return leftovers_hold(&request, text, sizeof text) == EBUSY;
}

static void wait_for(int left)
{
	for (int tries = 0; left_in(aside) != left; tries++) {
		CHECK(tries < 300);
		usleep(10 * 1000);
		leftovers_step();
	}
}

static void taken_over(void)
{
	int wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	uint64_t woken;

	script_reset(3);
	leave(3);
	script_hold(0, SCRIPT_THAW);         /* its disk does not answer */
	script_fail(1, SCRIPT_THAW, EIO, 2); /* tried again */
	CHECK(leftovers_take(marker_path, &scripted_calls, wake) == 0);
	CHECK(access(marker_path, F_OK) < 0 && access(aside, F_OK) == 0);
	wait_for(1);
	CHECK(script_frozen(0) && !script_frozen(1) && !script_frozen(2) && script_calls(1, SCRIPT_THAW) == 3);
	CHECK(holds(0) && !holds(1) && !holds(2));
	CHECK(read(wake, &woken, sizeof woken) == sizeof woken);

	/* Another one dies meanwhile: both are kept. */
	CHECK(marker_write(marker_path, temporary,
			   &(struct marker){ .pid = 4194303, .start_time = 8, .session = "x" }) == 0);
	CHECK(marker_set_aside(marker_path) == 0);
	CHECK(access(aside, F_OK) == 0);

	script_let_go(0, SCRIPT_THAW);
	wait_for(-1);
	CHECK(!script_frozen(0) && !holds(0));
	close(wake);
	aside[strlen(aside) - 1] = '8';
	CHECK(unlink(aside) == 0);
	aside[strlen(aside) - 1] = '7';
}

static void inside_section(void)
{
	int wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	static struct marker in;
	char problem[512];

	script_reset(1);
	leave(1);
	CHECK(marker_read(marker_path, &in, problem, sizeof problem) == 1);
	in.critical_until = deadline_after(clock_now(), 300);
	CHECK(marker_write(marker_path, temporary, &in) == 0);
	marker_free(&in);
	CHECK(leftovers_take(marker_path, &scripted_calls, wake) == 0);
	usleep(150 * 1000);
	CHECK(script_frozen(0) && holds(0) && script_calls(0, SCRIPT_THAW) == 0);
	wait_for(-1);
	CHECK(!script_frozen(0) && !holds(0) && clock_now() >= in.critical_until);
	close(wake);
}

static void thawed_without_a_freezer(void)
{
	struct thaw_job what = { marker_path, nobody, nobody, &scripted_calls, 300 };

	script_reset(2);
	leave(2);
	CHECK(marker_set_aside(marker_path) == 0);
	script_hold(1, SCRIPT_THAW);
	CHECK(thaw_marked(&what) == 1);
	CHECK(left_in(aside) == 1);
	script_let_go(1, SCRIPT_THAW);
	CHECK(thaw_marked(&what) == 0);
	CHECK(access(aside, F_OK) < 0);
}

static void damaged(void)
{
	char kept[300];
	FILE *file = fopen(marker_path, "w");

	CHECK(file != NULL && fputs("nonsense\n", file) > 0 && fclose(file) == 0);
	CHECK(leftovers_take(marker_path, &scripted_calls, -1) == 0);
	snprintf(kept, sizeof kept, "%s.damaged", marker_path);
	CHECK(access(marker_path, F_OK) < 0 && unlink(kept) == 0);
	CHECK(leftovers_take(marker_path, &scripted_calls, -1) == 0); /* nothing there */
	leftovers_step();
}

void test_leftovers(void)
{
	snprintf(marker_path, sizeof marker_path, "%s/left-frozen", scratch);
	snprintf(temporary, sizeof temporary, "%s.new", marker_path);
	snprintf(aside, sizeof aside, "%s.left-4194303-7", marker_path);
	snprintf(nobody, sizeof nobody, "%s/nobody", scratch);
	taken_over();
	inside_section();
	thawed_without_a_freezer();
	damaged();
	passed("leftovers");
}
