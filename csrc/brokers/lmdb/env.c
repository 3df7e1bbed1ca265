#define _GNU_SOURCE /* pipe2 */
#include "brokers/lmdb/env.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "brokers/lmdb/verify.h"

#define DATA_FILE "data.mdb" /* LMDB's name for it */
#define LOCK_FILE "weir.lock"
#define LEAST_RESERVE ((size_t)1 << 20)
#define DISK_RESERVE ((size_t)1 << 20) /* of the file, for deletions on a full disk */
#define LEAST_ROOM ((off_t)1 << 18)    /* for the pages of the trees that a job rewrites */

/* --- a signal --------------------------------------------------------------------------------- */

/* A write beyond the limit of a file's size (ulimit -f) ends the process with SIGXFSZ; blocked, it
 * fails with EFBIG, which can be told. The signal is for the thread that writes. */
typedef struct {
  sigset_t mask;
  bool was_pending;
} held_signal;

static bool is_pending(void) {
  sigset_t pending;
  return sigpending(&pending) == 0 && sigismember(&pending, SIGXFSZ) == 1;
}

static held_signal hold_signal(void) {
  held_signal held = {.was_pending = is_pending()};
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGXFSZ);
  pthread_sigmask(SIG_BLOCK, &set, &held.mask);
  return held;
}

static void release_signal(const held_signal *held) {
  if (!held->was_pending && is_pending()) {
    sigset_t set;
    int number = 0;
    sigemptyset(&set);
    sigaddset(&set, SIGXFSZ);
    sigwait(&set, &number);
  }
  pthread_sigmask(SIG_SETMASK, &held->mask, NULL);
}

/* --- opening ---------------------------------------------------------------------------------- */

static char *path_in(const char *dir, const char *name) {
  size_t len = strlen(dir) + strlen(name) + 2;
  char *path = malloc(len);
  if (path != NULL) snprintf(path, len, "%s/%s", dir, name);
  return path;
}

/* LMDB's own lock admits any number of processes, which would both think that they are the broker.
 * This one ends with the process, however that ends; it also excludes a second user in this one. */
static int take_lock(weir_lmdb *db, const char *dir) {
  char *path = path_in(dir, LOCK_FILE);
  if (path == NULL) return ENOMEM;
  db->lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0660);
  int error = db->lock < 0 ? errno : 0;
  free(path);
  if (error != 0) return error;
  while (flock(db->lock, LOCK_EX | LOCK_NB) != 0) {
    if (errno == EINTR) continue;
    return errno == EWOULDBLOCK ? WEIR_LMDB_LOCKED : errno;
  }
  return 0;
}

static int open_databases(weir_lmdb *db, const weir_lmdb_options *options) {
  MDB_txn *txn;
  int error = mdb_txn_begin(db->env, NULL, 0, &txn);
  if (error != 0) return error;
  error = mdb_dbi_open(txn, NULL, 0, &db->dbis[0]);
  for (unsigned i = 0; i < options->database_count && error == 0; i++) {
    error = mdb_dbi_open(txn, options->databases[i], MDB_CREATE, &db->dbis[i + 1]);
  }
  if (error == 0) return mdb_txn_commit(txn);
  mdb_txn_abort(txn);
  return error;
}

static size_t whole_pages(size_t size) {
  size_t page = (size_t)sysconf(_SC_PAGESIZE);
  return size > SIZE_MAX - page ? SIZE_MAX / page * page : (size + page - 1) / page * page;
}

/* The map as it will be at first; a file that is larger gets one of its own size. */
static int size_map(weir_lmdb *db, const weir_lmdb_options *options, const char *file) {
  struct stat st;
  db->max_size = whole_pages(options->max_size);
  db->reserve = whole_pages(db->max_size / 8);
  if (db->reserve < LEAST_RESERVE) db->reserve = LEAST_RESERVE;
  size_t size = options->size;
  if (stat(file, &st) == 0 && (uint64_t)st.st_size > size) size = (size_t)st.st_size;
  db->size = whole_pages(size);
  return mdb_env_set_mapsize(db->env, db->size);
}

static int open_env(weir_lmdb *db, const weir_lmdb_options *options, char *why, size_t why_size) {
  char *file = path_in(options->dir, DATA_FILE);
  if (file == NULL) return ENOMEM;
  int error = weir_lmdb_verify(file, why, why_size);
  if (error == 0) error = mdb_env_create(&db->env);
  if (error == 0) error = mdb_env_set_maxdbs(db->env, WEIR_LMDB_MAX_DATABASES);
  if (error == 0) error = size_map(db, options, file);
  free(file);
  /* Every read transaction has a slot of its own, not its thread; memory that LMDB writes out is
   * not cleared first: it holds nothing but what was in the batches. */
  unsigned flags = MDB_NOTLS | MDB_NOMEMINIT | (options->sync ? 0 : MDB_NOSYNC);
  if (error == 0) error = mdb_env_open(db->env, options->dir, flags, 0660);
  return error != 0 ? error : open_databases(db, options);
}

static void release(weir_lmdb *db) {
  if (db->env != NULL) mdb_env_close(db->env);
  if (db->lock >= 0) close(db->lock);
  db->env = NULL;
  db->lock = -1;
}

int weir_lmdb_open(weir_lmdb *db, const weir_lmdb_options *options, char *why, size_t why_size) {
  *db = (weir_lmdb){.lock = -1, .pipe = {-1, -1}};
  if (why_size > 0) why[0] = '\0';
  if (mkdir(options->dir, 0770) != 0 && errno != EEXIST) return errno;
  int error = take_lock(db, options->dir);
  if (error == 0) {
    held_signal held = hold_signal();
    error = open_env(db, options, why, why_size);
    release_signal(&held);
  }
  if (error != 0) {
    release(db);
    return error;
  }
  pthread_mutex_init(&db->mutex, NULL);
  pthread_cond_init(&db->changed, NULL);
  return 0;
}

/* --- committing ------------------------------------------------------------------------------- */

/* Gives the map another size once nobody reads. In the thread, waits for that. */
static int resize(weir_lmdb *db, size_t size, bool wait) {
  pthread_mutex_lock(&db->mutex);
  while (wait && db->readers > 0)
    pthread_cond_wait(&db->changed, &db->mutex);
  int error = WEIR_LMDB_BUSY;
  if (db->readers == 0) error = mdb_env_set_mapsize(db->env, size);
  if (error == 0) db->size = size;
  pthread_mutex_unlock(&db->mutex);
  return error;
}

/* The map is full: makes it larger, or tells that it must not be. */
static int grow(weir_lmdb *db, size_t limit, bool wait) {
  if (db->size >= limit) return MDB_MAP_FULL;
  size_t size = db->size > limit / 2 ? limit : db->size * 2;
  return resize(db, size, wait);
}

static int apply_once(weir_lmdb *db, const weir_lmdb_job *job) {
  MDB_txn *txn;
  int error = mdb_txn_begin(db->env, NULL, 0, &txn);
  if (error != 0) return error;
  error = weir_lmdb_batch_apply(job->batch, job->from, job->to, txn, db->dbis);
  if (error == 0) return mdb_txn_commit(txn);
  mdb_txn_abort(txn);
  return error;
}

/* Pages of the file that LMDB will use again: those in its database of free pages, number 0, whose
 * values are lists that begin with their length. */
static size_t free_pages(weir_lmdb *db) {
  MDB_txn *txn;
  MDB_cursor *cursor;
  MDB_val key, list;
  size_t total = 0, count;
  if (mdb_txn_begin(db->env, NULL, MDB_RDONLY, &txn) != 0) return 0;
  if (mdb_cursor_open(txn, 0, &cursor) == 0) {
    while (mdb_cursor_get(cursor, &key, &list, MDB_NEXT) == 0) {
      memcpy(&count, list.mv_data, sizeof count);
      total += count;
    }
    mdb_cursor_close(cursor);
  }
  mdb_txn_abort(txn);
  return total;
}

/* Has the disk set aside what a job may need and the reserve; or there is as much in the file. */
static int ensure_room(weir_lmdb *db, const weir_lmdb_job *job) {
  MDB_envinfo info;
  MDB_stat stat;
  mdb_filehandle_t fd;
  int error = mdb_env_info(db->env, &info);
  if (error == 0) error = mdb_env_stat(db->env, &stat);
  if (error == 0) error = mdb_env_get_fd(db->env, &fd);
  if (error != 0) return error;
  size_t used = (info.me_last_pgno + 1) * stat.ms_psize, bytes = job->to - job->from;
  size_t needed = used + bytes + bytes / 2 + DISK_RESERVE, most = db->max_size + db->reserve;
  if (needed > most) needed = most;
  if (needed <= db->allocated) return 0;
  size_t ahead = needed + needed / 8;
  if (ahead > most) ahead = most;
  error = posix_fallocate(fd, 0, (off_t)ahead);
  if (error != 0) {
    ahead = needed;
    error = posix_fallocate(fd, 0, (off_t)needed);
  }
  if (error == 0) db->allocated = ahead;
  if (error != 0 && used + free_pages(db) * stat.ms_psize >= needed) return 0;
  return error == EOPNOTSUPP || error == EINVAL ? 0 : error; /* this file system cannot */
}

/* LMDB says EIO when a write was cut short, as it is where the disk or the limit of a file is
 * reached in the middle of it. Asks the system for the room that the job may need: if it has none,
 * that is what was wrong; else the job can be tried again. */
static int ask_for_room(weir_lmdb *db, const weir_lmdb_job *job) {
  mdb_filehandle_t fd;
  struct stat st;
  if (mdb_env_get_fd(db->env, &fd) != 0 || fstat(fd, &st) != 0) return EIO;
  int error = posix_fallocate(fd, st.st_size, (off_t)(job->to - job->from) * 2 + LEAST_ROOM);
  if (error != 0 && ftruncate(fd, st.st_size) != 0) return EIO;
  return error;
}

static int run_job(weir_lmdb *db, const weir_lmdb_job *job, bool wait) {
  size_t limit = db->max_size + (job->reserve ? db->reserve : 0);
  int error = 0;
  /* A commit that used the reserve left the map so large; LMDB does not cut off what is in use. */
  if (db->size > limit) error = resize(db, limit, wait);
  bool asked = false;
  if (error == 0 && !job->reserve) error = ensure_room(db, job);
  while (error == 0) {
    error = apply_once(db, job);
    if (error == EIO && !asked) {
      asked = true;
      error = ask_for_room(db, job);
    } else if (error == MDB_MAP_FULL) {
      error = grow(db, limit, wait);
    } else {
      return error;
    }
  }
  return error;
}

int weir_lmdb_commit(weir_lmdb *db, const weir_lmdb_batch *batch, size_t from, size_t to,
                     bool reserve) {
  if (db->committing) return WEIR_LMDB_BUSY;
  weir_lmdb_job job = {.batch = batch, .from = from, .to = to, .reserve = reserve};
  held_signal held = hold_signal();
  int error = run_job(db, &job, false);
  release_signal(&held);
  return error;
}

static void tell_done(weir_lmdb *db) {
  while (write(db->pipe[1], "", 1) < 0 && errno == EINTR) {
  }
}

static void *work(void *arg) {
  weir_lmdb *db = arg;
  pthread_mutex_lock(&db->mutex);
  while (true) {
    while (db->job.batch == NULL && !db->stopping)
      pthread_cond_wait(&db->changed, &db->mutex);
    if (db->job.batch == NULL) break;
    weir_lmdb_job job = db->job;
    pthread_mutex_unlock(&db->mutex);
    int error = run_job(db, &job, true);
    pthread_mutex_lock(&db->mutex);
    db->job.batch = NULL;
    db->job.error = error;
    tell_done(db);
  }
  pthread_mutex_unlock(&db->mutex);
  return NULL;
}

/* A program that another thread starts meanwhile must not inherit it: so, in one step where the
 * system can. */
static int open_pipe(int ends[2]) {
#ifdef __linux__
  return pipe2(ends, O_CLOEXEC | O_NONBLOCK);
#else
  if (pipe(ends) != 0) return -1;
  for (int i = 0; i < 2; i++) {
    fcntl(ends[i], F_SETFD, FD_CLOEXEC);
    fcntl(ends[i], F_SETFL, O_NONBLOCK);
  }
  return 0;
#endif
}

/* The program's signals are not for this thread, nor is SIGXFSZ. */
static int start_thread(weir_lmdb *db) {
  if (db->pipe[0] < 0 && open_pipe(db->pipe) != 0) return errno;
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  int error = pthread_create(&db->thread, NULL, work, db);
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  db->has_thread = error == 0;
  return error;
}

int weir_lmdb_submit(weir_lmdb *db, const weir_lmdb_batch *batch, size_t from, size_t to,
                     bool reserve) {
  if (db->committing) return WEIR_LMDB_BUSY;
  int error = db->has_thread ? 0 : start_thread(db);
  if (error != 0) return error;
  pthread_mutex_lock(&db->mutex);
  db->job = (weir_lmdb_job){.batch = batch, .from = from, .to = to, .reserve = reserve};
  db->committing = true;
  pthread_cond_broadcast(&db->changed);
  pthread_mutex_unlock(&db->mutex);
  return 0;
}

bool weir_lmdb_finish(weir_lmdb *db, int *error) {
  if (!db->committing) return false;
  pthread_mutex_lock(&db->mutex);
  bool done = db->job.batch == NULL;
  *error = db->job.error;
  pthread_mutex_unlock(&db->mutex);
  if (!done) return false;
  char byte;
  while (read(db->pipe[0], &byte, 1) < 0 && errno == EINTR) {
  }
  db->committing = false;
  return true;
}

int weir_lmdb_fd(weir_lmdb *db, int *fd) {
  int error = db->has_thread ? 0 : start_thread(db);
  *fd = db->pipe[0];
  return error;
}

void weir_lmdb_close(weir_lmdb *db) {
  if (db->has_thread) {
    pthread_mutex_lock(&db->mutex);
    db->stopping = true;
    pthread_cond_broadcast(&db->changed);
    pthread_mutex_unlock(&db->mutex);
    pthread_join(db->thread, NULL);
    db->has_thread = false;
  }
  for (int i = 0; i < 2; i++) {
    if (db->pipe[i] >= 0) close(db->pipe[i]);
    db->pipe[i] = -1;
  }
  release(db);
  pthread_cond_destroy(&db->changed);
  pthread_mutex_destroy(&db->mutex);
}

/* --- reading ---------------------------------------------------------------------------------- */

int weir_lmdb_read(weir_lmdb *db, MDB_txn **txn) {
  pthread_mutex_lock(&db->mutex);
  int error = mdb_txn_begin(db->env, NULL, MDB_RDONLY, txn);
  if (error == 0) db->readers++;
  pthread_mutex_unlock(&db->mutex);
  return error;
}

void weir_lmdb_read_end(weir_lmdb *db, MDB_txn *txn) {
  mdb_txn_abort(txn);
  pthread_mutex_lock(&db->mutex);
  db->readers--;
  pthread_cond_broadcast(&db->changed);
  pthread_mutex_unlock(&db->mutex);
}

/* The thread may be about to move the map, which is where LMDB looks. */
size_t weir_lmdb_used(weir_lmdb *db) {
  MDB_envinfo info;
  MDB_stat stat;
  pthread_mutex_lock(&db->mutex);
  int error = mdb_env_info(db->env, &info);
  if (error == 0) error = mdb_env_stat(db->env, &stat);
  pthread_mutex_unlock(&db->mutex);
  return error == 0 ? (info.me_last_pgno + 1) * stat.ms_psize : 0;
}

/* --- errors ----------------------------------------------------------------------------------- */

const char *weir_lmdb_code(int error) {
  switch (error) {
    case MDB_MAP_FULL: return "full";
    case ENOSPC:
    case EDQUOT:
    case EFBIG: return "no_space";
    case WEIR_LMDB_LOCKED: return "locked";
    case WEIR_LMDB_BUSY:
    case MDB_READERS_FULL: return "busy";
    case MDB_CORRUPTED:
    case MDB_INVALID:
    case MDB_PAGE_NOTFOUND:
    case MDB_INCOMPATIBLE: return "damaged";
    case MDB_VERSION_MISMATCH: return "version";
    case MDB_BAD_VALSIZE: return "bad_key";
    case MDB_TXN_FULL: return "too_large";
    case MDB_PANIC: return "failed";
    case ENOMEM: return "no_memory";
    case ENOENT:
    case ENOTDIR: return "not_found";
    case EACCES:
    case EPERM:
    case EROFS: return "permission";
    default: return "io";
  }
}

const char *weir_lmdb_text(int error) {
  if (error == WEIR_LMDB_LOCKED) return "another process uses this directory";
  if (error == WEIR_LMDB_BUSY) return "a commit or a reader is in the way";
  if (error == MDB_MAP_FULL) return "the store has reached its greatest size";
  return mdb_strerror(error);
}
