/*
 * What LMDB gives when nothing else is in the way: the baseline of the durable memory broker.
 *
 *   baseline_lmdb DIR sync|nosync BATCH SIZE SECONDS
 *
 * In each transaction it stores BATCH messages of SIZE bytes under rising keys, removes those of
 * the transaction before, and notes the highest key, as a broker does whose consumer keeps up. At
 * the end it prints
 *
 *   messages=N transactions=N seconds=S
 */
#include <inttypes.h>
#include <lmdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

#define MAP_SIZE ((size_t)1 << 30)
#define HEAD 64 /* bytes that a broker adds to a payload: destination, time, groups */

typedef struct {
  MDB_env *env;
  MDB_dbi main, messages;
  size_t batch, size;
  uint64_t last; /* key */
  unsigned char *value;
} loop;

static void check(int status, const char *what) {
  if (status == 0) return;
  fprintf(stderr, "baseline_lmdb: %s: %s\n", what, mdb_strerror(status));
  exit(1);
}

static MDB_val key_of(uint64_t number, unsigned char bytes[8]) {
  for (int i = 7; i >= 0; i--, number >>= 8)
    bytes[i] = (unsigned char)number;
  return (MDB_val){.mv_size = 8, .mv_data = bytes};
}

static void open_env(loop *l, const char *dir, int sync) {
  MDB_txn *txn;
  check(mdb_env_create(&l->env), "create");
  check(mdb_env_set_maxdbs(l->env, 4), "maxdbs");
  check(mdb_env_set_mapsize(l->env, MAP_SIZE), "mapsize");
  check(mdb_env_open(l->env, dir, MDB_NOTLS | MDB_NOMEMINIT | (sync ? 0 : MDB_NOSYNC), 0660), dir);
  check(mdb_txn_begin(l->env, NULL, 0, &txn), "begin");
  check(mdb_dbi_open(txn, NULL, 0, &l->main), "open");
  check(mdb_dbi_open(txn, "messages", MDB_CREATE, &l->messages), "open");
  check(mdb_txn_commit(txn), "commit");
}

static void transaction(loop *l) {
  MDB_txn *txn;
  unsigned char bytes[8];
  MDB_val value = {.mv_size = HEAD + l->size, .mv_data = l->value}, key;
  check(mdb_txn_begin(l->env, NULL, 0, &txn), "begin");
  for (size_t i = 0; i < l->batch && l->last > 0; i++) {
    key = key_of(l->last - i, bytes);
    check(mdb_del(txn, l->messages, &key, NULL), "del");
  }
  for (size_t i = 0; i < l->batch; i++) {
    key = key_of(++l->last, bytes);
    check(mdb_put(txn, l->messages, &key, &value, MDB_APPEND), "put");
  }
  key = (MDB_val){.mv_size = 4, .mv_data = (void *)"last"};
  value = (MDB_val){.mv_size = 8, .mv_data = &l->last};
  check(mdb_put(txn, l->main, &key, &value, 0), "put");
  check(mdb_txn_commit(txn), "commit");
}

int main(int argc, char **argv) {
  if (argc != 6) {
    fprintf(stderr, "usage: baseline_lmdb DIR sync|nosync BATCH SIZE SECONDS\n");
    return 2;
  }
  loop l = {.batch = strtoul(argv[3], NULL, 10), .size = strtoul(argv[4], NULL, 10)};
  double seconds = strtod(argv[5], NULL);
  l.value = calloc(1, HEAD + l.size);
  if (l.value == NULL) return 1;
  open_env(&l, argv[1], strcmp(argv[2], "sync") == 0);
  uint64_t start = uv_hrtime(), end = start, count = 0;
  while ((double)(end - start) * 1e-9 < seconds) {
    transaction(&l);
    count++;
    end = uv_hrtime();
  }
  mdb_env_close(l.env);
  free(l.value);
  printf("messages=%" PRIu64 " transactions=%" PRIu64 " seconds=%.6f\n", count * l.batch, count,
         (double)(end - start) * 1e-9);
  return 0;
}
