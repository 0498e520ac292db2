/* Notes what the disk is known to hold. Preloaded into the writer; each line of the notes is one event:
 *   link NAME INODE      a file below the watched folder got a name (and a second one in the graveyard, so that its
 *                        bytes can be looked at whatever happens to the first)
 *   mkdir NAME           a folder got a name
 *   rename OLD NEW       a name changed
 *   unlink NAME          a name went
 *   sync INODE SIZE      a sync of the file was completed; SIZE is its size when the sync began
 *   dirsync NAME         a sync of a folder was completed; the watched folder itself is called "."
 * Names are paths below the watched folder.
 * The writer notes its acknowledgements in the same file, so that the order of lines is the order of events.
 * While the file SHIM_FULL exists, the disk is full: writes to files of the watched folder fail with ENOSPC, the first
 * of them after half of its bytes. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char *watched, *graveyard, *full;
static int notes = -1;

static void note(const char *format, ...) {
    char line[512];
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    if (notes >= 0 && write(notes, line, (size_t)length) != length)
        abort();
}

__attribute__((constructor)) static void start(void) {
    int (*real)(const char *, int, ...) = dlsym(RTLD_NEXT, "open");
    watched = getenv("SHIM_WATCHED");
    graveyard = getenv("SHIM_GRAVEYARD");
    full = getenv("SHIM_FULL");
    if (watched && graveyard && getenv("WRITER_NOTES"))
        notes = real(getenv("WRITER_NOTES"), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
}

/* The path below the watched folder, or NULL. */
static const char *name_of(const char *path) {
    size_t length = watched ? strlen(watched) : 0;
    if (!length || strncmp(path, watched, length) || path[length] != '/')
        return NULL;
    while (path[length] == '/')
        length++;
    return path[length] ? path + length : NULL;
}

/* The path that an open file or folder has now. */
static int path_of(int fd, char *path, size_t size) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, size - 1);
    path[length < 0 ? 0 : length] = 0;
    return length > 0;
}

static int opened(int fd, const char *path, int flags) {
    const char *name = name_of(path);
    struct stat info;
    if (fd >= 0 && graveyard && (flags & O_CREAT) && name && fstat(fd, &info) == 0) {
        char grave[512];
        snprintf(grave, sizeof grave, "%s/%lu", graveyard, (unsigned long)info.st_ino);
        if (link(path, grave) == 0)
            note("link %s %lu\n", name, (unsigned long)info.st_ino);
    }
    return fd;
}

#define MODE \
    mode_t mode = 0; \
    if (flags & (O_CREAT | O_TMPFILE)) { \
        va_list arguments; \
        va_start(arguments, flags); \
        mode = va_arg(arguments, mode_t); \
        va_end(arguments); \
    }

int open(const char *path, int flags, ...) {
    int (*real)(const char *, int, ...) = dlsym(RTLD_NEXT, "open");
    MODE
    return opened(real(path, flags, mode), path, flags);
}

int open64(const char *path, int flags, ...) {
    int (*real)(const char *, int, ...) = dlsym(RTLD_NEXT, "open64");
    MODE
    return opened(real(path, flags, mode), path, flags);
}

int rename(const char *old, const char *new) {
    int (*real)(const char *, const char *) = dlsym(RTLD_NEXT, "rename");
    int result = real(old, new);
    if (result == 0 && name_of(old) && name_of(new))
        note("rename %s %s\n", name_of(old), name_of(new));
    return result;
}

int mkdir(const char *path, mode_t mode) {
    int (*real)(const char *, mode_t) = dlsym(RTLD_NEXT, "mkdir");
    int result = real(path, mode);
    if (result == 0 && name_of(path))
        note("mkdir %s\n", name_of(path));
    return result;
}

int unlink(const char *path) {
    int (*real)(const char *) = dlsym(RTLD_NEXT, "unlink");
    int result = real(path);
    if (result == 0 && name_of(path))
        note("unlink %s\n", name_of(path));
    return result;
}

static int synced(int (*real)(int), int fd) {
    struct stat info;
    char path[512];
    int known = fstat(fd, &info) == 0;
    int result = real(fd);
    if (result != 0 || !known || !watched)
        return result;
    if (!S_ISDIR(info.st_mode))
        note("sync %lu %lld\n", (unsigned long)info.st_ino, (long long)info.st_size);
    else if (path_of(fd, path, sizeof path) && (name_of(path) || strcmp(path, watched) == 0))
        note("dirsync %s\n", name_of(path) ? name_of(path) : ".");
    return result;
}

int fsync(int fd) { return synced(dlsym(RTLD_NEXT, "fsync"), fd); }

int fdatasync(int fd) { return synced(dlsym(RTLD_NEXT, "fdatasync"), fd); }

static int refused(int fd) {
    char path[512];
    if (!full || access(full, F_OK) != 0)
        return 0;
    return path_of(fd, path, sizeof path) && name_of(path) != NULL;
}

ssize_t write(int fd, const void *bytes, size_t count) {
    static int torn;
    ssize_t (*real)(int, const void *, size_t) = dlsym(RTLD_NEXT, "write");
    if (!refused(fd))
        return real(fd, bytes, count);
    if (!torn && count > 1) {
        torn = 1;
        return real(fd, bytes, count / 2);
    }
    errno = ENOSPC;
    return -1;
}

ssize_t pwrite(int fd, const void *bytes, size_t count, off_t offset) {
    ssize_t (*real)(int, const void *, size_t, off_t) = dlsym(RTLD_NEXT, "pwrite");
    if (!refused(fd))
        return real(fd, bytes, count, offset);
    errno = ENOSPC;
    return -1;
}

ssize_t pwrite64(int fd, const void *bytes, size_t count, off64_t offset) {
    return pwrite(fd, bytes, count, offset);
}
