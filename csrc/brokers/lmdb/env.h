/*
 * weir_lmdb: an LMDB environment in a directory, of which this process is the only user.
 *
 * Changes come as batches (brokers/lmdb/batch.h), each applied in one transaction: in the calling
 * thread (weir_lmdb_commit), or by a thread of the environment (weir_lmdb_submit), which makes a
 * descriptor readable when it is done; one at a time. Reads are LMDB's read transactions, begun and
 * ended here because the map may move only while there are none.
 *
 * The map grows by itself, twofold, up to `max_size`. In a full one even a deletion needs new pages
 * (what it changes is copied); so there is a reserve above it that commits use only when they are
 * told to. For the same reason the file is kept longer than what is in use: other commits fail when
 * the disk has not got that much, and deletions still find room in it.
 *
 * All functions are called by one thread. Errors are LMDB's numbers, errno's, or one of
 * weir_lmdb_error; weir_lmdb_code() has a stable name for each.
 */
#ifndef WEIR_BROKERS_LMDB_ENV_H
#define WEIR_BROKERS_LMDB_ENV_H

#include <lmdb.h>
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>

#include "brokers/lmdb/batch.h"

enum {
  WEIR_LMDB_MAX_DATABASES = 16, /* the main one included, which is number 0 */
  WEIR_LMDB_MAX_KEY = 511,      /* bytes: what LMDB is built with */
};

typedef enum weir_lmdb_error {
  WEIR_LMDB_LOCKED = -20000, /* another user has the directory */
  WEIR_LMDB_BUSY,            /* a commit is under way, or a reader holds the map in its place */
} weir_lmdb_error;

typedef struct weir_lmdb_options {
  const char *dir; /* made when it is not there; its parent must be */
  size_t size;     /* of the map at first, bytes; rounded up to pages */
  size_t max_size;
  bool sync; /* a commit returns when it is on the disk; else, when the system has it */
  const char *const *databases;
  unsigned database_count; /* up to WEIR_LMDB_MAX_DATABASES - 1; they get the numbers from 1 */
} weir_lmdb_options;

typedef struct weir_lmdb_job {
  const weir_lmdb_batch *batch; /* NULL: none */
  size_t from, to;
  bool reserve;
  int error;
} weir_lmdb_job;

typedef struct weir_lmdb {
  MDB_env *env;
  MDB_dbi dbis[WEIR_LMDB_MAX_DATABASES];
  int lock; /* descriptor of the file that is locked */
  size_t max_size, reserve;
  size_t allocated;      /* bytes from the beginning of the file that the disk has room for */
  size_t size;           /* of the map now; `mutex` once there is the thread */
  pthread_mutex_t mutex; /* of what follows */
  pthread_cond_t changed;
  unsigned readers;
  bool committing, stopping;
  weir_lmdb_job job;
  pthread_t thread;
  bool has_thread;
  int pipe[2]; /* a byte for each job that is done */
} weir_lmdb;

/* Opens, or makes, an environment. On an error nothing is open, and `why` may say more than
 * weir_lmdb_text(). */
int weir_lmdb_open(weir_lmdb *db, const weir_lmdb_options *options, char *why, size_t why_size);
/* Waits for the commit under way. All readers have ended. */
void weir_lmdb_close(weir_lmdb *db);

/* Applies a part of a batch: all of it, or on an error nothing. */
int weir_lmdb_commit(weir_lmdb *db, const weir_lmdb_batch *batch, size_t from, size_t to,
                     bool reserve);
/* The same in the thread. The batch is borrowed until weir_lmdb_finish() has said that it is done.
 */
int weir_lmdb_submit(weir_lmdb *db, const weir_lmdb_batch *batch, size_t from, size_t to,
                     bool reserve);
/* Whether a submitted batch is done; then *error is its result, and the next may come. */
bool weir_lmdb_finish(weir_lmdb *db, int *error);
/* A descriptor that is readable when weir_lmdb_finish() has an answer. Starts the thread. */
int weir_lmdb_fd(weir_lmdb *db, int *fd);

/* A consistent view of what has been committed. May wait while the map grows. */
int weir_lmdb_read(weir_lmdb *db, MDB_txn **txn);
void weir_lmdb_read_end(weir_lmdb *db, MDB_txn *txn);

/* Bytes of the file that are in use or were. */
size_t weir_lmdb_used(weir_lmdb *db);

/* A stable name ("full", "no_space", "locked", "damaged", ...), and a sentence. */
const char *weir_lmdb_code(int error);
const char *weir_lmdb_text(int error);

#endif
