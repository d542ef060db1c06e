/*
 * Preloaded into a Python process: each read, write and flush of a file below SLOW_BELOW takes SLOW_MS milliseconds
 * longer, as on remote or busy storage.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

static void wait_if_slow(int fd)
{
    const char *below = getenv("SLOW_BELOW"), *ms = getenv("SLOW_MS");
    char name[64], path[4096];
    ssize_t length;

    if (below == NULL || ms == NULL)
        return;
    snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
    length = readlink(name, path, sizeof path - 1);
    if (length <= 0)
        return;
    path[length] = 0;
    if (strncmp(path, below, strlen(below)) == 0)
        usleep((useconds_t)atoi(ms) * 1000);
}

ssize_t write(int fd, const void *data, size_t count)
{
    ssize_t (*next)(int, const void *, size_t) = dlsym(RTLD_NEXT, "write");

    wait_if_slow(fd);
    return next(fd, data, count);
}

ssize_t read(int fd, void *data, size_t count)
{
    ssize_t (*next)(int, void *, size_t) = dlsym(RTLD_NEXT, "read");

    wait_if_slow(fd);
    return next(fd, data, count);
}

int fsync(int fd)
{
    int (*next)(int) = dlsym(RTLD_NEXT, "fsync");

    wait_if_slow(fd);
    return next(fd);
}
