#include "io/listener.h"

#include <stdlib.h>

struct weir_listener {
  weir_io io;
  weir_loop *loop;
  weir_conn_kind kind;
  union {
    uv_handle_t handle;
    uv_stream_t stream;
    uv_tcp_t tcp;
    uv_pipe_t pipe;
  } uv;
  weir_listener_accepted accepted;
  void *user;
};

static void on_closed(uv_handle_t *handle) { free(handle->data); }

void weir_listener_free(weir_listener *listener) {
  weir_list_remove(&listener->io.link);
  listener->loop->touched = true;
  uv_close(&listener->uv.handle, on_closed);
}

static void release(weir_io *io) { weir_listener_free(weir_list_of(io, weir_listener, io)); }

static void on_connection(uv_stream_t *server, int error) {
  weir_listener *listener = server->data;
  if (error != 0) return; /* of one connection that went away: the next may do better */
  weir_conn *conn = weir_conn_new(listener->loop, listener->kind);
  if (conn == NULL) return;
  if (weir_conn_accept(conn, server) != 0) {
    weir_conn_free(conn);
    return;
  }
  listener->loop->fed = true;
  listener->accepted(listener, conn, listener->user);
}

static weir_listener *create(weir_loop *loop, weir_conn_kind kind, weir_listener_accepted accepted,
                             void *user, int *error) {
  weir_listener *listener = calloc(1, sizeof *listener);
  if (listener == NULL) {
    *error = UV_ENOMEM;
    return NULL;
  }
  listener->loop = loop;
  listener->kind = kind;
  listener->accepted = accepted;
  listener->user = user;
  *error = kind == WEIR_CONN_TCP ? uv_tcp_init(&loop->uv, &listener->uv.tcp)
                                 : uv_pipe_init(&loop->uv, &listener->uv.pipe, 0);
  if (*error != 0) {
    free(listener);
    return NULL;
  }
  listener->uv.handle.data = listener;
  weir_loop_own(loop, &listener->io, release);
  return listener;
}

static weir_listener *start(weir_listener *listener, int backlog, int *error) {
  if (*error == 0) *error = uv_listen(&listener->uv.stream, backlog, on_connection);
  if (*error == 0) {
    listener->loop->touched = true;
    return listener;
  }
  weir_listener_free(listener);
  return NULL;
}

weir_listener *weir_listener_tcp(weir_loop *loop, const struct sockaddr *address, int backlog,
                                 weir_listener_accepted accepted, void *user, int *error) {
  weir_listener *listener = create(loop, WEIR_CONN_TCP, accepted, user, error);
  if (listener == NULL) return NULL;
  *error = uv_tcp_bind(&listener->uv.tcp, address, 0);
  return start(listener, backlog, error);
}

weir_listener *weir_listener_unix(weir_loop *loop, const char *path, int backlog,
                                  weir_listener_accepted accepted, void *user, int *error) {
  weir_listener *listener = create(loop, WEIR_CONN_UNIX, accepted, user, error);
  if (listener == NULL) return NULL;
  *error = uv_pipe_bind(&listener->uv.pipe, path);
  return start(listener, backlog, error);
}

int weir_listener_port(const weir_listener *listener) {
  if (listener->kind != WEIR_CONN_TCP) return 0;
  struct sockaddr_storage address;
  int len = sizeof address;
  char host[UV_MAXHOSTNAMESIZE];
  int port = 0;
  if (uv_tcp_getsockname(&listener->uv.tcp, (struct sockaddr *)&address, &len) != 0) return 0;
  return weir_sockaddr_name((struct sockaddr *)&address, host, sizeof host, &port) == 0 ? port : 0;
}
