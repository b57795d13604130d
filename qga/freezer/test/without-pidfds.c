/* Runs a program as on Linux 4.18: without-pidfds PROGRAM [WORD...]. For test/integration/freezer.test.ts. */
#define _GNU_SOURCE
#include "switch-off.h"

#include <unistd.h>

int main(int count, char **words)
{
	if (count < 2)
		return 2;
	switch_off_pidfds();
	execv(words[1], words + 1);
	perror(words[1]);
	return 127;
}
