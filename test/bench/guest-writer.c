/*
 * An application of a guest that writes durably, without a pause: blocks of 4 KiB over a file that is there, each on the disk
 * before the next one. On SIGTERM it prints a line for each write: when it began, in microseconds of the wall clock, and
 * how many microseconds it took.
 *
 *   guest-writer FILE scattered     anywhere in the file
 *   guest-writer FILE in-order      one after the other in its first 64 MiB, and again from the start
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { BLOCK = 4096, IN_ORDER_BLOCKS = 16384, MAX_WRITES = 1 << 20 };

struct write {
    int64_t began_us;
    uint32_t took_us;
};

static struct write writes[MAX_WRITES];
static volatile sig_atomic_t is_told_to_end;

static void end(int signal)
{
    (void)signal;
    is_told_to_end = 1;
}

static int64_t now_us(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

int main(int argc, char **argv)
{
    static char block[BLOCK] __attribute__((aligned(BLOCK)));
    const struct sigaction ends = {.sa_handler = end};
    uint64_t random = 88172645463325252;
    size_t count = 0;
    struct stat found;

    int is_scattered = argc == 3 && strcmp(argv[2], "scattered") == 0;
    if (argc != 3 || (!is_scattered && strcmp(argv[2], "in-order") != 0)) {
        fprintf(stderr, "usage: guest-writer FILE scattered|in-order\n");
        return 2;
    }
    int file = open(argv[1], O_WRONLY | O_DIRECT | O_DSYNC | O_CLOEXEC);
    if (file < 0 || fstat(file, &found) != 0 || found.st_size < (off_t)IN_ORDER_BLOCKS * BLOCK) {
        perror(argv[1]);
        return 1;
    }
    sigaction(SIGTERM, &ends, NULL);
    uint64_t blocks = is_scattered ? (uint64_t)found.st_size / BLOCK : IN_ORDER_BLOCKS;
    for (uint64_t turn = 0; !is_told_to_end && count < MAX_WRITES; turn++, count++) {
        /* xorshift64 */
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        off_t at = (off_t)((is_scattered ? random : turn) % blocks) * BLOCK;
        memcpy(block, &random, sizeof(random));
        writes[count].began_us = now_us(CLOCK_REALTIME);
        int64_t start_us = now_us(CLOCK_MONOTONIC);
        if (pwrite(file, block, BLOCK, at) != BLOCK) {
            perror("write");
            return 1;
        }
        writes[count].took_us = (uint32_t)(now_us(CLOCK_MONOTONIC) - start_us);
    }
    for (size_t n = 0; n < count; n++)
        printf("%lld %u\n", (long long)writes[n].began_us, writes[n].took_us);
    return count == MAX_WRITES;
}
