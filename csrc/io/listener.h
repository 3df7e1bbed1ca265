/*
 * weir_listener: a TCP or unix socket that takes connections.
 *
 * Each connection is handed over as a weir_conn that reads nothing until it gets an endpoint, and
 * belongs to whoever got it. Memory: the creator calls weir_listener_free(), which closes the
 * socket; libuv then removes a unix socket's file.
 */
#ifndef WEIR_IO_LISTENER_H
#define WEIR_IO_LISTENER_H

#include "io/conn.h"
#include "io/loop.h"

typedef struct weir_listener weir_listener;

/* May free the listener. */
typedef void (*weir_listener_accepted)(weir_listener *listener, weir_conn *conn, void *user);

/* NULL and a libuv error. */
weir_listener *weir_listener_tcp(weir_loop *loop, const struct sockaddr *address, int backlog,
                                 weir_listener_accepted accepted, void *user, int *error);
weir_listener *weir_listener_unix(weir_loop *loop, const char *path, int backlog,
                                  weir_listener_accepted accepted, void *user, int *error);
void weir_listener_free(weir_listener *listener);
/* The TCP port that it has, which is of interest when it was asked for port 0; else 0. */
int weir_listener_port(const weir_listener *listener);

#endif
