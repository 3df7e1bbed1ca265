/*
 * weir_conn: one connection, which moves bytes between a transport and an endpoint.
 *
 * The transport is a TCP socket, a unix socket, or (in memory) another weir_conn of the same
 * process, whose endpoint is fed what this one's shows, without a socket. A connection begins
 * without an endpoint and reads nothing until it has one.
 *
 * What it does for the endpoint: feeds it what arrives, from the loop's one buffer; writes what it
 * shows when the loop is flushed, as one writev() where possible; what the socket does not take is
 * copied, at most one block, and no more output is asked for until that is gone, so that a peer
 * that stops reading stops the endpoint; calls tick() in time. When the endpoint is finished, or
 * feed() or tick() failed, it writes the output that is left, shuts its side down, waits for the
 * peer to do the same, and closes: for `linger` nanoseconds at most. When the peer shuts its side
 * down first, the connection is closed once what the endpoint had to say at that moment is written,
 * as far as the transport takes it at once; an endpoint with input_ended() may say more, and ends
 * it itself.
 *
 * Memory: the creator owns it and calls weir_conn_free() once, at any time; the endpoint belongs to
 * somebody else, who may free it early and then sets the slot that was given to NULL.
 */
#ifndef WEIR_IO_CONN_H
#define WEIR_IO_CONN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include "core/endpoint.h"
#include "core/list.h"
#include "core/status.h"
#include "io/loop.h"

typedef struct weir_conn weir_conn;

typedef enum weir_conn_kind {
  WEIR_CONN_TCP,
  WEIR_CONN_UNIX,
  WEIR_CONN_MEMORY
} weir_conn_kind;

typedef struct weir_conn_stats {
  uint64_t received; /* bytes */
  uint64_t sent;     /* bytes that the transport took */
} weir_conn_stats;

/* The attempt to connect ended: 0, or a libuv error and the connection is of no use. */
typedef void (*weir_conn_opened)(weir_conn *conn, int error, void *user);
/* The connection is closed: WEIR_OK when the peer or the endpoint ended it in order, else what went
 * wrong, with the libuv error or 0. Called once for each connection with an endpoint, unless it was
 * freed first. */
typedef void (*weir_conn_closed)(weir_conn *conn, weir_status status, int error, void *user);

/* NULL when memory is out. */
weir_conn *weir_conn_new(weir_loop *loop, weir_conn_kind kind);
/* Closes it at once if it is open. No callback follows; the endpoint's ended() is called. */
void weir_conn_free(weir_conn *conn);

/* A libuv error when the attempt could not even begin; opened() is not called then. */
int weir_conn_connect_tcp(weir_conn *conn, const struct sockaddr *address, weir_conn_opened opened,
                          void *user);
int weir_conn_connect_unix(weir_conn *conn, const char *path, weir_conn_opened opened, void *user);
/* For the listener: takes the connection that waits on `server`. */
int weir_conn_accept(weir_conn *conn, uv_stream_t *server);
/* Makes two new connections of kind MEMORY each other's peer. */
void weir_conn_join(weir_conn *a, weir_conn *b);

/* Whether an endpoint can be attached now. */
bool weir_conn_ready(const weir_conn *conn);
/* Starts to move bytes for the endpoint in *slot; ready() must hold and *slot have no driver. */
int weir_conn_attach(weir_conn *conn, weir_endpoint **slot, uint64_t linger,
                     weir_conn_closed closed, void *user);
/* Forgets the endpoint without a word to it, because it is about to be freed; no callback follows.
 */
void weir_conn_detach(weir_conn *conn);
/* Tries once to write the output that is there, then closes; closed() follows with WEIR_E_CLOSED.
 */
void weir_conn_close(weir_conn *conn);

weir_conn_stats weir_conn_stat(const weir_conn *conn);
/* The peer's numeric address; the port is 0 where there is none. */
int weir_conn_peer(const weir_conn *conn, char *host, size_t size, int *port);

/* For the loop. */
weir_conn *weir_conn_of_dirty(weir_link *link);
void weir_conn_flush(weir_conn *conn, uint64_t now);
/* Writes what is left and closes the connection that is in weir_loop.ended by this link, unless the
 * endpoint goes on. */
void weir_conn_end(weir_link *link, uint64_t now);

/* A socket address as numbers. */
int weir_sockaddr_name(const struct sockaddr *address, char *host, size_t size, int *port);

#endif
