/* Runs the C tests: no privileges, no real freeze. They take about 40 s, most of it scripted waiting. */
#define _GNU_SOURCE
#include "check.h"

#include <ftw.h>
#include <signal.h>
#include <unistd.h>

/* Like /run, where the markers of a real one lie: a disk under load has kept a rename waiting for more than a second. */
char scratch[] = "/dev/shm/freezer-test-XXXXXX";

static int tests;

void passed(const char *name)
{
	tests++;
	puts(name);
}

static int drop(const char *path, const struct stat *status, int type, struct FTW *where)
{
	(void)status, (void)type, (void)where;
	return remove(path);
}

int main(void)
{
	signal(SIGPIPE, SIG_IGN);
	setvbuf(stdout, NULL, _IOLBF, 0);
	alarm(300); /* a test that hangs is a failed test */
	CHECK(mkdtemp(scratch) != NULL);
	test_requests();
	test_markers();
	test_thaw_marked();
	test_leftovers();
	test_heartbeats();
	test_mount_disks();
	test_sessions();
	CHECK(nftw(scratch, drop, 8, FTW_DEPTH | FTW_PHYS) == 0);
	printf("%d passed, 0 failed\n", tests);
	return 0;
}
