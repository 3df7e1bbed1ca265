/*
 * weir_resolve: host names to addresses, in libuv's thread pool.
 *
 * Memory: the creator calls weir_resolve_free(), before or after the answer came. Freed before it,
 * no callback follows; the memory itself lasts until the system's resolver is done with it.
 */
#ifndef WEIR_IO_RESOLVE_H
#define WEIR_IO_RESOLVE_H

#include "io/loop.h"

typedef struct weir_resolve weir_resolve;

/* error 0: `list` has the addresses, for the time of the call. */
typedef void (*weir_resolve_done)(weir_resolve *resolve, int error, const struct addrinfo *list,
                                  void *user);

/* NULL and a libuv error. `host` and `service` are copied. */
weir_resolve *weir_resolve_new(weir_loop *loop, const char *host, const char *service,
                               weir_resolve_done done, void *user, int *error);
void weir_resolve_free(weir_resolve *resolve);

#endif
