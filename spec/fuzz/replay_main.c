/*
 * Runs a fuzz target without libFuzzer: once with the empty input, then with each file (or each
 * file of each directory) named on the command line. A corpus so becomes a regression test in every
 * build. A directory that does not exist counts as empty; a file that cannot be read is an error.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int replay_file(const char *path, size_t size) {
  FILE *file = fopen(path, "rb");
  /* Exactly `size` bytes on the heap, so that the sanitizer sees a read past the end. */
  uint8_t *data = malloc(size > 0 ? size : 1);
  int failed = file == NULL || data == NULL || fread(data, 1, size, file) != size;
  if (failed) {
    (void)fprintf(stderr, "%s: cannot read it: %s\n", path, strerror(errno));
  } else {
    (void)LLVMFuzzerTestOneInput(data, size);
  }
  free(data);
  if (file != NULL) {
    (void)fclose(file);
  }
  return failed;
}

static int replay(const char *path, unsigned *count);

static int replay_directory(const char *path, unsigned *count) {
  struct dirent **entries = NULL;
  int found = scandir(path, &entries, NULL, alphasort);
  int failed = found < 0;
  for (int i = 0; i < found; i++) {
    char *child = NULL;
    if (entries[i]->d_name[0] != '.') {
      if (asprintf(&child, "%s/%s", path, entries[i]->d_name) < 0) {
        failed = 1;
      } else {
        failed |= replay(child, count);
        free(child);
      }
    }
    free(entries[i]);
  }
  free(entries);
  return failed;
}

static int replay(const char *path, unsigned *count) {
  struct stat info;
  if (stat(path, &info) != 0) {
    if (errno == ENOENT) {
      return 0;
    }
    perror(path);
    return 1;
  }
  if (S_ISDIR(info.st_mode)) {
    return replay_directory(path, count);
  }
  *count += 1;
  return replay_file(path, (size_t)info.st_size);
}

int main(int argc, char **argv) {
  unsigned count = 0;
  int failed = 0;
  (void)LLVMFuzzerTestOneInput((const uint8_t *)"", 0);
  for (int i = 1; i < argc; i++) {
    failed |= replay(argv[i], &count);
  }
  (void)printf("replayed %u inputs\n", count);
  return failed;
}
