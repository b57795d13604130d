/*
 * A writer of bench -- in-guest that takes 20 ms to hold and nothing to let go. It is a resident of our agent's;
 * as `NAME freeze PATH...` and `NAME thaw PATH...` it is one of dragonsdawn-snapshot's. Either way it notes by
 * the guest's clock when it was asked to hold, and when it had let go.
 */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static const char NOTES[] = "/run/fsb-bench-notes";
static const long WAIT_NS = 20 * 1000000L;

/* One write for a line: the writers hold side by side. */
static int note(const char *what)
{
    char line[64];
    struct timespec now;
    int file, length;

    clock_gettime(CLOCK_MONOTONIC, &now);
    length = snprintf(line, sizeof(line), "%s %lld.%06ld\n", what, (long long)now.tv_sec, now.tv_nsec / 1000);
    file = open(NOTES, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (file < 0 || write(file, line, (size_t)length) != length)
        return -1;
    return close(file);
}

static int act(const char *phase)
{
    const struct timespec wait = {.tv_nsec = WAIT_NS};

    if (strncmp(phase, "freeze", 6) == 0)
        return note("freeze") != 0 || nanosleep(&wait, NULL) != 0;
    return strncmp(phase, "thaw", 4) == 0 && note("thaw") != 0;
}

int main(int argc, char **argv)
{
    char line[4096];

    if (argc > 1 && (strcmp(argv[1], "freeze") == 0 || strcmp(argv[1], "thaw") == 0))
        return act(argv[1]);
    while (fgets(line, sizeof(line), stdin) != NULL) {
        if (act(line) != 0 || write(STDOUT_FILENO, "ok\n", 3) != 3)
            return 1;
    }
    return 0;
}
