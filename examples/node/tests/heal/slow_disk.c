/* Delays fdatasync by the milliseconds that the file X0_TEST_DELAY_FILE holds; without the file there is no delay. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

int fdatasync(int fd) {
    int (*next)(int) = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
    const char *path = getenv("X0_TEST_DELAY_FILE");
    FILE *file = path == NULL ? NULL : fopen(path, "r");
    if (file != NULL) {
        long delay = 0;
        if (fscanf(file, "%ld", &delay) == 1 && delay > 0) {
            struct timespec time = {delay / 1000, delay % 1000 * 1000000};
            nanosleep(&time, NULL);
        }
        fclose(file);
    }
    return next(fd);
}
