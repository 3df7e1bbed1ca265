/*
 * weir_endpoint: what a driver moves bytes for.
 *
 * A driver owns a transport (a socket, a pipe, a cosocket, another endpoint in the same process)
 * and one endpoint, which it does not own. It feeds what it read, writes what output() shows and
 * reports with sent() how much went out. It must call output() again after each feed(), tick() and
 * after the endpoint called wake().
 *
 * An endpoint is embedded as the FIRST member of the object that implements it (weir_yamux).
 */
#ifndef WEIR_ENDPOINT_H
#define WEIR_ENDPOINT_H

#include <stddef.h>
#include <stdint.h>

#include "core/buf.h"
#include "core/status.h"
#include "core/time.h"

typedef struct weir_endpoint weir_endpoint;

struct weir_endpoint {
  /* Takes all `len` bytes. On an error the connection is of no more use: write what output() still
   * shows (it may say goodbye), then close. `now`: monotonic nanoseconds, here and below. */
  weir_status (*feed)(weir_endpoint *endpoint, const void *data, size_t len, uint64_t now);
  /* Whether no more should be read now, because the application has not taken what came; NULL:
   * never. Asked after each feed() and each wake(). What was read already is fed all the same. */
  int (*paused)(const weir_endpoint *endpoint);
  /* Shows up to `max` runs that wait to be written, and returns how many. They stay valid until the
   * next call of any function of the endpoint other than output(). */
  size_t (*output)(weir_endpoint *endpoint, weir_iov *iov, size_t max, uint64_t now);
  /* `len` bytes of what output() showed have been written. */
  void (*sent)(weir_endpoint *endpoint, size_t len);
  /* Time passed: call when deadline() is reached. An error means as for feed(). */
  weir_status (*tick)(weir_endpoint *endpoint, uint64_t now);
  /* When tick() is due, or WEIR_NEVER. */
  uint64_t (*deadline)(const weir_endpoint *endpoint);
  /* The peer sends no more, and may still read. Returns whether the endpoint has, or will have,
   * more to say: it is then the endpoint that ends the connection, by finished(). NULL: it never
   * has, and the end of what the peer sends is the end of the connection. */
  int (*input_ended)(weir_endpoint *endpoint);
  /* The transport ended (`reason` WEIR_OK: end of file). No other call follows. */
  void (*ended)(weir_endpoint *endpoint, weir_status reason);
  /* Whether the endpoint wants the connection closed once its output is written. */
  int (*finished)(const weir_endpoint *endpoint);

  /* Set by the driver, NULL while there is none. Called by the endpoint when output appears where
   * there was none; the driver must not call back into the endpoint from it, only note it. */
  void (*wake)(weir_endpoint *endpoint, void *driver);
  void *driver;
};

static inline void weir_endpoint_wake(weir_endpoint *endpoint) {
  if (endpoint->wake != NULL) endpoint->wake(endpoint, endpoint->driver);
}

#endif
