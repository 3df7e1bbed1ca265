#include "brokers/lmdb/batch.h"

#include <stdlib.h>
#include <string.h>

/* What a cleared batch keeps of its memory at most. */
#define KEPT_BYTES ((size_t)4 << 20)

/* In front of each operation's key and value. */
typedef struct {
  uint64_t vlen;
  uint16_t klen;
  uint8_t op;
  uint8_t db;
} head;

static bool reserve(weir_lmdb_batch *batch, size_t more) {
  if (more > SIZE_MAX / 2 - batch->len) return false;
  size_t needed = batch->len + more;
  if (needed <= batch->capacity) return true;
  size_t capacity = batch->capacity > 0 ? batch->capacity : 4096;
  while (capacity < needed)
    capacity += capacity;
  unsigned char *bytes = realloc(batch->bytes, capacity);
  if (bytes == NULL) return false;
  batch->bytes = bytes;
  batch->capacity = capacity;
  return true;
}

bool weir_lmdb_batch_add(weir_lmdb_batch *batch, weir_lmdb_op op, unsigned db, size_t klen,
                         size_t vlen, unsigned char **key) {
  head h;
  *key = NULL;
  if (vlen > SIZE_MAX / 4 || !reserve(batch, sizeof h + klen + vlen)) return false;
  memset(&h, 0, sizeof h);
  h.vlen = vlen;
  h.klen = (uint16_t)klen;
  h.op = (uint8_t)op;
  h.db = (uint8_t)db;
  unsigned char *at = batch->bytes + batch->len;
  memcpy(at, &h, sizeof h);
  *key = at + sizeof h;
  batch->len += sizeof h + klen + vlen;
  batch->count++;
  if (db > batch->highest) batch->highest = db;
  return true;
}

bool weir_lmdb_batch_join(weir_lmdb_batch *batch, const weir_lmdb_batch *other) {
  if (other->len == 0) return true;
  if (!reserve(batch, other->len)) return false;
  memcpy(batch->bytes + batch->len, other->bytes, other->len);
  batch->len += other->len;
  batch->count += other->count;
  if (other->highest > batch->highest) batch->highest = other->highest;
  return true;
}

static int apply(const head *h, MDB_val *key, MDB_val *value, MDB_txn *txn, MDB_dbi dbi) {
  int error;
  switch ((weir_lmdb_op)h->op) {
    case WEIR_LMDB_DEL:
      error = mdb_del(txn, dbi, key, NULL);
      return error == MDB_NOTFOUND ? 0 : error;
    case WEIR_LMDB_APPEND:
      error = mdb_put(txn, dbi, key, value, MDB_APPEND);
      if (error != MDB_KEYEXIST) return error;
      break; /* there is a greater one */
    case WEIR_LMDB_PUT: break;
  }
  return mdb_put(txn, dbi, key, value, 0);
}

int weir_lmdb_batch_apply(const weir_lmdb_batch *batch, size_t from, size_t to, MDB_txn *txn,
                          const MDB_dbi *dbis) {
  while (from < to) {
    head h;
    memcpy(&h, batch->bytes + from, sizeof h);
    from += sizeof h;
    MDB_val key = {.mv_size = h.klen, .mv_data = batch->bytes + from};
    MDB_val value = {.mv_size = (size_t)h.vlen, .mv_data = batch->bytes + from + h.klen};
    from += h.klen + (size_t)h.vlen;
    int error = apply(&h, &key, &value, txn, dbis[h.db]);
    if (error != 0) return error;
  }
  return 0;
}

/* The operations in front of a position; *exact tells whether it lies between two. */
static size_t count_until(const weir_lmdb_batch *batch, size_t position, bool *exact) {
  size_t at = 0, count = 0;
  while (at < position && at < batch->len) {
    head h;
    memcpy(&h, batch->bytes + at, sizeof h);
    at += sizeof h + h.klen + (size_t)h.vlen;
    count++;
  }
  *exact = at == position;
  return count;
}

size_t weir_lmdb_batch_middle(const weir_lmdb_batch *batch, size_t from, size_t to) {
  size_t middle = from + (to - from) / 2, at = from;
  while (at < middle || (at == from && at < to)) {
    head h;
    memcpy(&h, batch->bytes + at, sizeof h);
    at += sizeof h + h.klen + (size_t)h.vlen;
  }
  return at;
}

bool weir_lmdb_batch_fits(const weir_lmdb_batch *batch, size_t position) {
  bool exact = true;
  if (position != 0 && position != batch->len) count_until(batch, position, &exact);
  return exact;
}

void weir_lmdb_batch_cut(weir_lmdb_batch *batch, size_t position) {
  bool exact;
  batch->count = count_until(batch, position, &exact);
  batch->len = position;
}

void weir_lmdb_batch_clear(weir_lmdb_batch *batch) {
  batch->len = 0;
  batch->count = 0;
  batch->highest = 0;
  if (batch->capacity > KEPT_BYTES) weir_lmdb_batch_free(batch);
}

void weir_lmdb_batch_free(weir_lmdb_batch *batch) {
  free(batch->bytes);
  *batch = (weir_lmdb_batch){0};
}
