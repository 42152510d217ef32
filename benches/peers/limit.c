/* What this machine can do without any queue: the limits that every figure is a ratio of. It is also the
 * tasks that aren't /bin/true.
 *
 *   limit spawn N PROCESSES   posix_spawn + waitpid of /bin/true, N in all, from PROCESSES small processes
 *   limit latency N           the same one by one, 5 ms apart; one line of nanoseconds for each
 *   limit pipe BYTES          BYTES through one pipe, written and read in pieces of 64 KiB
 *   limit produce BYTES       writes BYTES to stdout in pieces of 64 KiB; each piece is different
 *   limit hold FILE           writes its process id to FILE and sleeps for ever
 *
 * The first and the third print the nanoseconds they took. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { PIECE = 64 * 1024 };

extern char **environ;

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static int64_t now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

static void spawn_true(void) {
    char *argv[] = {"/bin/true", NULL};
    pid_t child;
    int status;
    errno = posix_spawn(&child, argv[0], NULL, NULL, argv, environ);
    if (errno != 0) fail("posix_spawn");
    if (waitpid(child, &status, 0) != child || status != 0) fail("waitpid");
}

static void spawn(long count, long processes) {
    int64_t began = now();
    for (long process = 0; process < processes; process++) {
        pid_t child = fork();
        if (child < 0) fail("fork");
        if (child > 0) continue;
        for (long done = process; done < count; done += processes) spawn_true();
        _exit(0);
    }
    int status;
    while (wait(&status) > 0)
        if (status != 0) exit(1);
    printf("%lld\n", (long long)(now() - began));
}

static void latency(long count) {
    /* A submitter that waits for each task leaves the machine idle in between. */
    struct timespec pause = {0, 5 * 1000 * 1000};
    for (; count > 0; count--) {
        nanosleep(&pause, NULL);
        int64_t began = now();
        spawn_true();
        printf("%lld\n", (long long)(now() - began));
    }
}

static void produce(int out, int64_t bytes) {
    static char piece[PIECE];
    for (int i = 0; i < PIECE; i++) piece[i] = (char)(i * 131 >> 3);
    for (int64_t number = 0; bytes > 0; number++) {
        memcpy(piece, &number, sizeof number);
        size_t size = bytes < PIECE ? (size_t)bytes : PIECE;
        for (size_t done = 0; done < size;) {
            ssize_t wrote = write(out, piece + done, size - done);
            if (wrote < 0) fail("write");
            done += (size_t)wrote;
        }
        bytes -= (int64_t)size;
    }
}

static void through_pipe(int64_t bytes) {
    static char buffer[PIECE];
    int ends[2];
    if (pipe(ends) != 0) fail("pipe");
    int64_t began = now(), seen = 0;
    pid_t child = fork();
    if (child < 0) fail("fork");
    if (child == 0) {
        close(ends[0]);
        produce(ends[1], bytes);
        _exit(0);
    }
    close(ends[1]);
    for (ssize_t got; (got = read(ends[0], buffer, PIECE)) > 0;) seen += got;
    if (waitpid(child, NULL, 0) != child || seen != bytes) fail("pipe");
    printf("%lld\n", (long long)(now() - began));
}

/* The file appears whole: whoever waits for it reads a complete number. */
static void hold(const char *path) {
    char part[4096];
    snprintf(part, sizeof part, "%s.part", path);
    FILE *file = fopen(part, "w");
    if (file == NULL) fail(part);
    fprintf(file, "%d\n", (int)getpid());
    if (fclose(file) != 0 || rename(part, path) != 0) fail(path);
    for (;;) pause();
}

int main(int argc, char **argv) {
    const char *verb = argc > 2 ? argv[1] : "";
    if (strcmp(verb, "spawn") == 0 && argc == 4) spawn(atol(argv[2]), atol(argv[3]));
    else if (strcmp(verb, "latency") == 0) latency(atol(argv[2]));
    else if (strcmp(verb, "pipe") == 0) through_pipe(atoll(argv[2]));
    else if (strcmp(verb, "produce") == 0) produce(STDOUT_FILENO, atoll(argv[2]));
    else if (strcmp(verb, "hold") == 0) hold(argv[2]);
    else {
        fputs("usage: see the head of limit.c\n", stderr);
        return 2;
    }
    return 0;
}
