/*
 * weir_lmdb_batch: changes that are applied to an LMDB environment in one transaction.
 *
 * A growing buffer of operations, each with copies of its key and value. It has no lock: while a
 * commit reads it (weir_lmdb_submit), nobody may change it. Positions are bytes, as
 * weir_lmdb_batch.len was after some operation; a range of them can be applied alone.
 */
#ifndef WEIR_BROKERS_LMDB_BATCH_H
#define WEIR_BROKERS_LMDB_BATCH_H

#include <lmdb.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum weir_lmdb_op {
  WEIR_LMDB_PUT,
  WEIR_LMDB_APPEND, /* a put whose key is most likely the greatest: cheaper then */
  WEIR_LMDB_DEL,    /* of a key that need not be there */
} weir_lmdb_op;

typedef struct weir_lmdb_batch {
  unsigned char *bytes;
  size_t len, capacity;
  size_t count;     /* operations */
  unsigned highest; /* number of a database */
} weir_lmdb_batch;

/* Adds an operation with room for a key and a value, which the caller fills in; they lie behind
 * each other at *key. NULL in *key, and false, when there is no memory. klen is 1 to 511. */
bool weir_lmdb_batch_add(weir_lmdb_batch *batch, weir_lmdb_op op, unsigned db, size_t klen,
                         size_t vlen, unsigned char **key);
/* Adds all operations of `other` behind its own. False: no memory, nothing was added. */
bool weir_lmdb_batch_join(weir_lmdb_batch *batch, const weir_lmdb_batch *other);
/* Applies the operations from one position to another; dbis are looked up by their number. 0 or an
 * error of LMDB. */
int weir_lmdb_batch_apply(const weir_lmdb_batch *batch, size_t from, size_t to, MDB_txn *txn,
                          const MDB_dbi *dbis);
/* Whether an operation begins or ends at this position. */
bool weir_lmdb_batch_fits(const weir_lmdb_batch *batch, size_t position);
/* A position between two others, about in the middle; `to` if only one operation is there. */
size_t weir_lmdb_batch_middle(const weir_lmdb_batch *batch, size_t from, size_t to);
/* Forgets the operations from this position on, which weir_lmdb_batch_fits(). */
void weir_lmdb_batch_cut(weir_lmdb_batch *batch, size_t position);
/* Forgets the operations; keeps the memory unless it is much. */
void weir_lmdb_batch_clear(weir_lmdb_batch *batch);
void weir_lmdb_batch_free(weir_lmdb_batch *batch);

#endif
