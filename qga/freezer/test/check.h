/* The least a C test needs: a condition that ends the program when it does not hold. */
#ifndef FREEZER_TEST_CHECK_H
#define FREEZER_TEST_CHECK_H

#include <stdio.h>
#include <stdlib.h>

#define CHECK(condition)                                                                        \
	do {                                                                                    \
		if (!(condition)) {                                                             \
			fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition); \
			abort();                                                                \
		}                                                                               \
	} while (0)

/* Says that a test has passed; one that fails ends the program. */
void passed(const char *name);

void test_requests(void);
void test_markers(void);
void test_sessions(void);
void test_thaw_marked(void);
void test_leftovers(void);
void test_heartbeats(void);
void test_mount_disks(void);

/* A directory of this run, removed at its end. */
extern char scratch[];

#endif
