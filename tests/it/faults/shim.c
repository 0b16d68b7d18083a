/* A disk and a clock that fail on request, between a real process and the kernel: loaded by LD_PRELOAD.
 *
 * FAULTS_SHIM names a directory. Its file `ctl` is read for each call; a line is `CALL PATTERN ACTION [NUMBER]`:
 *   fsync .seg eio 1      the next 1 fsync of a file whose path contains `.seg` fails; the count is kept by the file `done`
 *   fsync .seg slow 300   each takes 300 ms longer
 *   write store.db enospc each write fails with "no space left"; half of it is written first where it is longer than 100 bytes
 *   clock * add 3600      the wall clock is so many seconds ahead
 * With the file `undo` there, what each write and truncation of the queue's and the store's files replaces is kept in `undo`, until an fsync made it
 * durable: what is left in it after a kill is what power loss may take. The harness puts it back. Directory entries are taken for durable.
 *
 * Only the calls that Rust's std and SQLite make are caught. Raw system calls of our own do not come back here. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static const char *place(void) {
    static const char *at = (const char *)-1;
    if (at == (const char *)-1) at = getenv("FAULTS_SHIM");
    return at;
}

static long slurp(const char *name, char *into, size_t room) {
    char path[4096];
    if (!place()) return -1;
    snprintf(path, sizeof path, "%s/%s", place(), name);
    int fd = (int)syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return -1;
    long read = syscall(SYS_read, fd, into, room - 1);
    syscall(SYS_close, fd);
    if (read < 0) return -1;
    into[read] = 0;
    return read;
}

static void path_of(int fd, char *into, size_t room) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    long length = syscall(SYS_readlinkat, AT_FDCWD, link, into, room - 1);
    into[length < 0 ? 0 : length] = 0;
}

/* What is to be done with this call: 0 nothing, else the errno; `slow` and `add` answer through `number`. */
static int asked(const char *call, const char *path, const char *action, long *number) {
    char text[4096], *save = NULL;
    if (slurp("ctl", text, sizeof text) <= 0) return 0;
    int which = 0;
    for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save), which++) {
        char c[16], p[256], a[16];
        long n = 0;
        int fields = sscanf(line, "%15s %255s %15s %ld", c, p, a, &n);
        if (fields < 3 || strcmp(c, call) || strcmp(a, action) || (strcmp(p, "*") && !strstr(path, p))) continue;
        if (number) {
            *number = n;
        } else if (fields == 4) {
            /* So many times: each leaves a byte behind, which also survives the process. */
            char done[4200];
            struct stat have;
            snprintf(done, sizeof done, "%s/done.%d", place(), which);
            pthread_mutex_lock(&lock);
            int fd = (int)syscall(SYS_openat, AT_FDCWD, done, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
            int is_used_up = fd < 0 || fstat(fd, &have) || have.st_size >= n;
            if (!is_used_up) syscall(SYS_write, fd, "x", 1);
            if (fd >= 0) syscall(SYS_close, fd);
            pthread_mutex_unlock(&lock);
            if (is_used_up) continue;
        }
        return 1;
    }
    return 0;
}

/* ---- what power loss takes back ---- */

struct entry {
    char kind; /* W bytes that were replaced, T a tail that was cut, S synced: everything of the path before it is safe */
    char unused[7];
    uint64_t offset, length, size; /* size: of the file before */
    char path[256];
};

static int undo_fd(void) {
    static int fd = -2;
    if (fd == -2 && place()) {
        char path[4096];
        snprintf(path, sizeof path, "%s/undo", place());
        fd = (int)syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_APPEND | O_CLOEXEC);
    }
    return fd;
}

static int is_kept(const char *path) {
    return undo_fd() >= 0 && (strstr(path, "/queue/") || strstr(path, "store.db")) && !strstr(path, "-shm") && !strstr(path, "lock");
}

static void keep(char kind, const char *path, uint64_t offset, uint64_t length, uint64_t size, const void *bytes) {
    struct entry entry = {.kind = kind, .offset = offset, .length = bytes ? length : 0, .size = size};
    snprintf(entry.path, sizeof entry.path, "%s", path);
    struct iovec parts[2] = {{&entry, sizeof entry}, {(void *)bytes, bytes ? length : 0}};
    syscall(SYS_writev, undo_fd(), parts, bytes ? 2 : 1);
}

static void keep_range(int fd, uint64_t offset, uint64_t length, char kind) {
    char path[4096];
    path_of(fd, path, sizeof path);
    if (!is_kept(path)) return;
    struct stat have;
    if (fstat(fd, &have)) return;
    uint64_t size = (uint64_t)have.st_size, there = offset >= size ? 0 : size - offset;
    if (there > length) there = length;
    char *bytes = malloc(there ? there : 1);
    long read = 0;
    if (there) {
        /* The file may be open for writing only. */
        char link[64];
        snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
        int own = (int)syscall(SYS_openat, AT_FDCWD, link, O_RDONLY | O_CLOEXEC);
        read = syscall(SYS_pread64, own, bytes, there, offset);
        syscall(SYS_close, own);
    }
    keep(kind, path, offset, read > 0 ? (uint64_t)read : 0, size, read > 0 ? bytes : NULL);
    free(bytes);
}

/* ---- the calls ---- */

static ssize_t written(int fd, const void *bytes, size_t count, int64_t offset, ssize_t (*go)(int, const void *, size_t, int64_t)) {
    struct stat have;
    if (!place() || fd < 2 || fstat(fd, &have) || !S_ISREG(have.st_mode)) return go(fd, bytes, count, offset);
    char path[4096];
    path_of(fd, path, sizeof path);
    if (asked("write", path, "enospc", NULL)) {
        errno = ENOSPC;
        return count > 100 ? go(fd, bytes, count / 2, offset) : -1;
    }
    if (undo_fd() < 0) return go(fd, bytes, count, offset);
    /* What is kept has to be kept before the bytes are there, and nothing may come in between. */
    pthread_mutex_lock(&lock);
    keep_range(fd, (uint64_t)(offset < 0 ? lseek(fd, 0, SEEK_CUR) : offset), count, 'W');
    ssize_t done = go(fd, bytes, count, offset);
    pthread_mutex_unlock(&lock);
    return done;
}

static ssize_t go_write(int fd, const void *bytes, size_t count, int64_t offset) {
    (void)offset;
    return syscall(SYS_write, fd, bytes, count);
}

static ssize_t go_pwrite(int fd, const void *bytes, size_t count, int64_t offset) { return syscall(SYS_pwrite64, fd, bytes, count, offset); }

ssize_t write(int fd, const void *bytes, size_t count) { return written(fd, bytes, count, -1, go_write); }
ssize_t pwrite(int fd, const void *bytes, size_t count, off_t offset) { return written(fd, bytes, count, offset, go_pwrite); }
ssize_t pwrite64(int fd, const void *bytes, size_t count, off64_t offset) { return written(fd, bytes, count, offset, go_pwrite); }

static int cut(int fd, int64_t length) {
    struct stat have;
    pthread_mutex_lock(&lock);
    if (undo_fd() >= 0 && !fstat(fd, &have)) keep_range(fd, (uint64_t)length, have.st_size > length ? (uint64_t)(have.st_size - length) : 0, 'T');
    int done = (int)syscall(SYS_ftruncate, fd, length);
    pthread_mutex_unlock(&lock);
    return done;
}

int ftruncate(int fd, off_t length) { return cut(fd, length); }
int ftruncate64(int fd, off64_t length) { return cut(fd, length); }

static int synced(int fd, int number) {
    char path[4096];
    long wait = 0;
    path_of(fd, path, sizeof path);
    if (asked("fsync", path, "eio", NULL)) {
        errno = EIO;
        return -1;
    }
    if (asked("fsync", path, "slow", &wait)) {
        struct timespec time = {wait / 1000, (wait % 1000) * 1000000};
        syscall(SYS_nanosleep, &time, NULL);
    }
    int done = 0;
    if (undo_fd() < 0) {
        done = (int)syscall(number, fd);
    } else if (is_kept(path)) {
        /* What was written until here is safe; the harness's own disk need not be waited for. */
        pthread_mutex_lock(&lock);
        keep('S', path, 0, 0, 0, NULL);
        pthread_mutex_unlock(&lock);
    }
    return done;
}

int fsync(int fd) { return synced(fd, SYS_fsync); }
int fdatasync(int fd) { return synced(fd, SYS_fdatasync); }

int clock_gettime(clockid_t clock, struct timespec *time) {
    int done = (int)syscall(SYS_clock_gettime, clock, time);
    long ahead = 0;
    if (!done && clock == CLOCK_REALTIME && place() && asked("clock", "*", "add", &ahead)) time->tv_sec += ahead;
    return done;
}
