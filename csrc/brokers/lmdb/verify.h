/*
 * Looks through the file of an LMDB environment before LMDB maps it.
 *
 * LMDB trusts its file: a page that is cut off or overwritten ends the program with SIGBUS, a
 * segmentation fault or an assertion, and one that is listed as free though it is not is lost when
 * it is used again. So every page that can be reached is checked first: it is inside the file,
 * knows its own number, is of the kind that leads to it, is reached once, and its nodes fill its
 * end. So are the lists of free pages; a page in one of them counts as reached. The layout is that
 * of LMDB 0.9 (data version 1, lmdb's mdb.c: MDB_page, MDB_node, MDB_db, MDB_meta); a file of
 * another version is left to LMDB, which refuses it. What a value holds is not looked at. No other
 * process may write the file meanwhile.
 */
#ifndef WEIR_BROKERS_LMDB_VERIFY_H
#define WEIR_BROKERS_LMDB_VERIFY_H

#include <stdio.h>

/* 0 (also for an empty or missing file), an errno, or MDB_CORRUPTED with the reason in `why`. */
int weir_lmdb_verify(const char *path, char *why, size_t size);

#endif
