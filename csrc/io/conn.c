#include "io/conn.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "io/sigpipe.h"

#ifndef MSG_NOSIGNAL /* where it is missing, libuv sets SO_NOSIGPIPE */
#define MSG_NOSIGNAL 0
#endif

#define MAX_RUNS 64
/* Bytes that one connection may write, or move in memory, before the others have their turn. */
#define WRITE_BUDGET ((size_t)1024 * 1024)

typedef enum conn_state {
  NEW,
  CONNECTING,
  READY,    /* connected; no endpoint */
  OPEN,     /* with an endpoint */
  DRAINING, /* nothing is fed any more; output is still written */
  CLOSING,
  CLOSED
} conn_state;

struct weir_conn {
  weir_io io;
  weir_alarm alarm;
  weir_link dirty, ending;
  weir_loop *loop;
  weir_conn_kind kind;
  conn_state state;
  union {
    uv_handle_t handle;
    uv_stream_t stream;
    uv_tcp_t tcp;
    uv_pipe_t pipe;
  } uv;
  weir_conn *peer;      /* of a connection in memory; NULL once that is gone */
  weir_endpoint **slot; /* NULL: no endpoint (any more) */
  uv_write_t write;     /* of `rest` */
  unsigned char *rest;  /* a block in flight, or NULL */
  uv_connect_t connect;
  uv_shutdown_t shutdown;
  uint64_t timer; /* in the loop's timers, or 0 */
  uint64_t timer_at;
  uint64_t linger;
  uint64_t drain_until;
  weir_status status; /* why it drains or closed */
  int error;
  bool shut;     /* shutdown was asked for */
  bool eof;      /* the peer sends no more, and the endpoint is to end the connection */
  bool paused;   /* the endpoint wants no more for now: nothing is read */
  bool released; /* by its owner: free it when it is closed */
  bool calling;  /* closed() is running */
  weir_conn_stats stats;
  weir_conn_opened opened;
  weir_conn_closed closed;
  void *user;
};

static weir_endpoint *endpoint_of(const weir_conn *conn) {
  return conn->slot != NULL ? *conn->slot : NULL;
}

static weir_status status_of(int error) {
  switch (error) {
    case 0:
    case UV_EOF: return WEIR_OK;
    case UV_ECONNRESET:
    case UV_EPIPE: return WEIR_E_RESET;
    case UV_ETIMEDOUT: return WEIR_E_TIMEOUT;
    case UV_ENOMEM: return WEIR_E_NOMEM;
    default: return WEIR_E_CLOSED;
  }
}

static void destroy(weir_conn *conn) {
  weir_list_remove(&conn->dirty);
  weir_list_remove(&conn->ending);
  weir_list_remove(&conn->io.link);
  if (conn->peer != NULL) conn->peer->peer = NULL;
  free(conn);
}

/* The transport is gone: the last step. */
static void finish(weir_conn *conn) {
  conn->state = CLOSED;
  weir_list_remove(&conn->io.link);
  if (conn->closed != NULL && !conn->released) {
    conn->loop->fed = true;
    conn->calling = true;
    conn->closed(conn, conn->status, conn->error, conn->user);
    conn->calling = false;
  }
  if (conn->released) destroy(conn);
}

static void on_handle_closed(uv_handle_t *handle) { finish(handle->data); }

static void cancel_timer(weir_conn *conn) {
  if (conn->timer != 0) weir_timers_cancel(&conn->loop->timers, conn->timer, NULL);
  conn->timer = 0;
}

static void let_go(weir_conn *conn, weir_status status, bool tell) {
  weir_endpoint *endpoint = endpoint_of(conn);
  conn->slot = NULL;
  if (endpoint == NULL) return;
  endpoint->wake = NULL;
  endpoint->driver = NULL;
  if (!tell) return;
  endpoint->ended(endpoint, status);
  conn->loop->fed = true;
}

/* The peer will send no more. The next flush that begins closes the connection, unless the endpoint
 * goes on: the application can deal with what came before, and what the endpoint then has to say is
 * still written. */
static void end_of_file(weir_conn *conn) {
  if (!weir_list_linked(&conn->ending)) weir_list_append(&conn->loop->ended, &conn->ending);
}

static void shut(weir_conn *conn, weir_status status, int error) {
  if (conn->state >= CLOSING) return;
  conn->state = CLOSING;
  conn->status = status;
  conn->error = error;
  cancel_timer(conn);
  let_go(conn, status, true);
  if (conn->kind != WEIR_CONN_MEMORY) {
    conn->loop->touched = true;
    uv_close(&conn->uv.handle, on_handle_closed);
    return;
  }
  if (conn->peer != NULL) {
    weir_conn *peer = conn->peer;
    conn->peer = NULL;
    peer->peer = NULL;
    end_of_file(peer);
  }
  weir_loop_mark(conn->loop, &conn->dirty);
}

static void drain(weir_conn *conn, weir_status status, uint64_t now) {
  if (conn->state != OPEN) return;
  conn->state = DRAINING;
  conn->status = status;
  conn->drain_until = now + conn->linger;
  weir_loop_mark(conn->loop, &conn->dirty);
}

static void arm(weir_conn *conn, const weir_endpoint *endpoint) {
  uint64_t due = conn->state == OPEN ? endpoint->deadline(endpoint) : conn->drain_until;
  if (due == WEIR_NEVER || (conn->timer != 0 && conn->timer_at <= due)) return;
  cancel_timer(conn);
  conn->timer_at = due;
  weir_timers *timers = &conn->loop->timers;
  if (weir_timers_add(timers, due, (uint64_t)(uintptr_t)&conn->alarm, &conn->timer) != WEIR_OK) {
    conn->timer = 0;
    shut(conn, WEIR_E_NOMEM, 0);
  }
}

static void on_due(weir_alarm *alarm, uint64_t now) {
  weir_conn *conn = weir_list_of(alarm, weir_conn, alarm);
  conn->timer = 0;
  weir_endpoint *endpoint = endpoint_of(conn);
  if (endpoint == NULL) {
    shut(conn, WEIR_E_CLOSED, 0);
  } else if (conn->state == DRAINING) {
    if (now >= conn->drain_until) {
      shut(conn, conn->status, 0);
    } else {
      arm(conn, endpoint);
    }
  } else if (conn->state == OPEN) {
    if (now >= endpoint->deadline(endpoint)) {
      conn->loop->fed = true;
      weir_status status = endpoint->tick(endpoint, now);
      if (status != WEIR_OK) drain(conn, status, now);
    }
    weir_loop_mark(conn->loop, &conn->dirty); /* the flush arms the timer again */
  }
}

/* --- reading ------------------------------------------------------------------------------------
 */

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buf) {
  (void)suggested;
  weir_conn *conn = handle->data;
  buf->base = (char *)conn->loop->buffer;
  buf->len = WEIR_LOOP_BUFFER;
}

static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf);

/* Reads on or not, as the endpoint wants. What drains is read, and dropped, up to its end. In
 * memory it is the peer that must stop to move bytes. */
static void heed_pause(weir_conn *conn, const weir_endpoint *endpoint) {
  if (conn->eof) return;
  bool pause = conn->state == OPEN && endpoint->paused != NULL && endpoint->paused(endpoint);
  if (pause == conn->paused) return;
  conn->paused = pause;
  if (conn->kind == WEIR_CONN_MEMORY) {
    if (!pause && conn->peer != NULL) weir_loop_mark(conn->loop, &conn->peer->dirty);
    return;
  }
  conn->loop->touched = true;
  int error = 0;
  if (pause) {
    uv_read_stop(&conn->uv.stream);
  } else {
    error = uv_read_start(&conn->uv.stream, on_alloc, on_read);
  }
  if (error != 0) shut(conn, status_of(error), error);
}

static void take(weir_conn *conn, const void *data, size_t len, uint64_t now) {
  if (conn->state != OPEN) return;
  weir_endpoint *endpoint = endpoint_of(conn);
  if (endpoint == NULL) {
    shut(conn, WEIR_E_CLOSED, 0);
    return;
  }
  conn->stats.received += len;
  conn->loop->fed = true;
  weir_status status = endpoint->feed(endpoint, data, len, now);
  if (status != WEIR_OK) drain(conn, status, now);
  heed_pause(conn, endpoint);
  weir_loop_mark(conn->loop, &conn->dirty);
}

/* Whether the endpoint goes on where the peer will send no more. In memory there is nobody left. */
static bool outlasts_input(weir_conn *conn) {
  weir_endpoint *endpoint = endpoint_of(conn);
  if (conn->kind == WEIR_CONN_MEMORY || endpoint == NULL || endpoint->input_ended == NULL) {
    return false;
  }
  if (!conn->eof) {
    conn->loop->fed = true;
    conn->eof = endpoint->input_ended(endpoint) != 0;
  }
  return conn->eof;
}

static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf) {
  weir_conn *conn = stream->data;
  if (n > 0) {
    take(conn, buf->base, (size_t)n, uv_hrtime());
  } else if (n == UV_EOF && conn->state == OPEN) {
    end_of_file(conn);
  } else if (n == UV_EOF && !conn->shut && outlasts_input(conn)) {
    weir_loop_mark(conn->loop, &conn->dirty); /* what drains is still written */
  } else if (n == UV_EOF) {
    shut(conn, conn->status, 0);
  } else if (n < 0) {
    shut(conn, conn->state == DRAINING ? conn->status : status_of((int)n), (int)n);
  }
}

/* --- writing ------------------------------------------------------------------------------------
 */

static void on_written(uv_write_t *req, int error) {
  weir_conn *conn = req->handle->data;
  conn->loop->writes--;
  weir_loop_return(conn->loop, conn->rest);
  conn->rest = NULL;
  if (error == 0) {
    weir_loop_mark(conn->loop, &conn->dirty);
  } else {
    shut(conn, status_of(error), error);
  }
}

/* Copies output, as much as fits, to `block` and takes it from the endpoint. */
static size_t gather(weir_endpoint *endpoint, unsigned char *block, uint64_t now) {
  weir_iov runs[MAX_RUNS];
  size_t count = endpoint->output(endpoint, runs, MAX_RUNS, now);
  size_t len = 0;
  for (size_t i = 0; i < count && len < WEIR_LOOP_BUFFER; i++) {
    size_t room = WEIR_LOOP_BUFFER - len;
    size_t part = runs[i].len < room ? runs[i].len : room;
    memcpy(block + len, runs[i].base, part);
    len += part;
  }
  if (len > 0) endpoint->sent(endpoint, len);
  return len;
}

/* The socket is full. What output() shows is good until the next feed() only: hence the copy. */
static void write_rest(weir_conn *conn, weir_endpoint *endpoint, uint64_t now) {
  conn->rest = weir_loop_borrow(conn->loop);
  if (conn->rest == NULL) {
    shut(conn, WEIR_E_NOMEM, 0);
    return;
  }
  size_t len = gather(endpoint, conn->rest, now);
  conn->stats.sent += len;
  conn->loop->touched = true;
  uv_buf_t buf = uv_buf_init((char *)conn->rest, (unsigned)len);
  weir_sigpipe hold;
  weir_sigpipe_hold(&hold);
  int error = uv_write(&conn->write, &conn->uv.stream, &buf, 1, on_written);
  weir_sigpipe_release(&hold);
  if (error == 0) {
    conn->loop->writes++;
    return;
  }
  weir_loop_return(conn->loop, conn->rest);
  conn->rest = NULL;
  shut(conn, status_of(error), error);
}

/* Writes without waiting: a count of bytes or a libuv error. Nothing of ours is in libuv's queue.
 */
static ssize_t write_now(weir_conn *conn, struct iovec *parts, size_t count) {
  uv_os_fd_t fd;
  int error = uv_fileno(&conn->uv.handle, &fd);
  if (error != 0) return error;
  struct msghdr message = {.msg_iov = parts, .msg_iovlen = count};
  ssize_t n;
  do {
    n = sendmsg(fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
  } while (n < 0 && errno == EINTR);
  if (n >= 0) return n;
  return errno == EAGAIN || errno == EWOULDBLOCK || errno == ENOBUFS ? UV_EAGAIN : -errno;
}

/* True when there is no output left. */
static bool write_output(weir_conn *conn, weir_endpoint *endpoint, uint64_t now) {
  for (size_t written = 0; written < WRITE_BUDGET;) {
    weir_iov runs[MAX_RUNS];
    struct iovec parts[MAX_RUNS];
    size_t count = endpoint->output(endpoint, runs, MAX_RUNS, now);
    if (count == 0) return true;
    size_t total = 0;
    for (size_t i = 0; i < count; i++) {
      parts[i] =
          (struct iovec){.iov_base = (void *)(uintptr_t)runs[i].base, .iov_len = runs[i].len};
      total += runs[i].len;
    }
    if (total == 0) return true;
    ssize_t n = write_now(conn, parts, count);
    if (n < 0 && n != UV_EAGAIN) {
      shut(conn, status_of((int)n), (int)n);
      return false;
    }
    if (n > 0) {
      endpoint->sent(endpoint, (size_t)n);
      conn->stats.sent += (size_t)n;
      written += (size_t)n;
    }
    if (n < 0 || (size_t)n < total) {
      write_rest(conn, endpoint, now);
      return false;
    }
  }
  weir_loop_mark(conn->loop, &conn->dirty);
  return false;
}

/* The same for a connection in memory. The copy makes it behave as a socket would: the endpoint
 * that is fed may do anything to the one that the bytes came from. */
static bool move_output(weir_conn *conn, weir_endpoint *endpoint, uint64_t now) {
  for (size_t moved = 0; moved < WRITE_BUDGET;) {
    if (conn->peer == NULL) return true;
    if (conn->peer->paused) return false; /* it marks this one when it goes on */
    size_t len = gather(endpoint, conn->loop->buffer, now);
    if (len == 0) return true;
    conn->stats.sent += len;
    moved += len;
    take(conn->peer, conn->loop->buffer, len, now);
    endpoint = endpoint_of(conn);
    if (endpoint == NULL) return true;
  }
  weir_loop_mark(conn->loop, &conn->dirty);
  return false;
}

static void on_shutdown(uv_shutdown_t *req, int error) {
  weir_conn *conn = req->handle->data;
  if (error != 0 || conn->eof) shut(conn, conn->status, error);
  /* Else the peer's end of file, or the end of the linger time, closes it. */
}

/* All output is written: say that no more will come. */
static void half_close(weir_conn *conn) {
  if (conn->kind == WEIR_CONN_MEMORY) {
    shut(conn, conn->status, 0);
    return;
  }
  if (conn->shut) return;
  conn->shut = true;
  conn->loop->touched = true;
  int error = uv_shutdown(&conn->shutdown, &conn->uv.stream, on_shutdown);
  if (error != 0) shut(conn, conn->status, error);
}

weir_conn *weir_conn_of_dirty(weir_link *link) { return weir_list_of(link, weir_conn, dirty); }

static bool is_open(const weir_conn *conn) {
  return conn->state == OPEN || conn->state == DRAINING;
}

/* Writes what an open connection has. */
static void flush_open(weir_conn *conn, uint64_t now) {
  bool memory = conn->kind == WEIR_CONN_MEMORY;
  weir_endpoint *endpoint = endpoint_of(conn);
  if (endpoint == NULL) {
    shut(conn, WEIR_E_CLOSED, 0);
    return;
  }
  bool done = false;
  if (memory) {
    done = move_output(conn, endpoint, now);
  } else if (conn->rest == NULL) {
    done = write_output(conn, endpoint, now);
  }
  endpoint = endpoint_of(conn);
  if (endpoint == NULL) return;
  if (conn->state == OPEN && endpoint->finished(endpoint)) drain(conn, WEIR_OK, now);
  if (conn->state == DRAINING && done) half_close(conn);
  if (is_open(conn)) heed_pause(conn, endpoint);
  if (is_open(conn)) arm(conn, endpoint);
}

void weir_conn_flush(weir_conn *conn, uint64_t now) {
  if (is_open(conn)) {
    flush_open(conn, now);
  } else if (conn->kind == WEIR_CONN_MEMORY && conn->state == CLOSING) {
    finish(conn);
  }
}

void weir_conn_end(weir_link *link, uint64_t now) {
  weir_conn *conn = weir_list_of(link, weir_conn, ending);
  if (!is_open(conn)) return;
  bool goes_on = outlasts_input(conn);
  flush_open(conn, now);
  if (!goes_on) shut(conn, conn->status, 0);
}

static void on_wake(weir_endpoint *endpoint, void *driver) {
  (void)endpoint;
  weir_conn *conn = driver;
  weir_loop_mark(conn->loop, &conn->dirty);
}

/* --- life ---------------------------------------------------------------------------------------
 */

static void release(weir_io *io) { weir_conn_free(weir_list_of(io, weir_conn, io)); }

weir_conn *weir_conn_new(weir_loop *loop, weir_conn_kind kind) {
  weir_conn *conn = calloc(1, sizeof *conn);
  if (conn == NULL) return NULL;
  conn->loop = loop;
  conn->kind = kind;
  conn->alarm.due = on_due;
  int error = 0;
  if (kind == WEIR_CONN_TCP) error = uv_tcp_init(&loop->uv, &conn->uv.tcp);
  if (kind == WEIR_CONN_UNIX) error = uv_pipe_init(&loop->uv, &conn->uv.pipe, 0);
  if (error != 0) {
    free(conn);
    return NULL;
  }
  conn->uv.handle.data = conn;
  weir_list_init(&conn->dirty);
  weir_list_init(&conn->ending);
  weir_loop_own(loop, &conn->io, release);
  return conn;
}

void weir_conn_free(weir_conn *conn) {
  conn->released = true;
  if (conn->calling) return; /* finish() goes on to destroy it */
  shut(conn, WEIR_E_CLOSED, 0);
  if (conn->kind == WEIR_CONN_MEMORY || conn->state == CLOSED) destroy(conn);
}

static void established(weir_conn *conn) {
  conn->state = READY;
  if (conn->kind == WEIR_CONN_TCP) uv_tcp_nodelay(&conn->uv.tcp, 1);
}

static void on_connect(uv_connect_t *req, int error) {
  weir_conn *conn = req->handle->data;
  if (conn->state != CONNECTING) return;
  if (error == 0) established(conn);
  conn->loop->fed = true;
  conn->opened(conn, error, conn->user); /* may free it */
}

static void connecting(weir_conn *conn, weir_conn_opened opened, void *user) {
  conn->state = CONNECTING;
  conn->loop->touched = true;
  conn->opened = opened;
  conn->user = user;
}

int weir_conn_connect_tcp(weir_conn *conn, const struct sockaddr *address, weir_conn_opened opened,
                          void *user) {
  int error = uv_tcp_connect(&conn->connect, &conn->uv.tcp, address, on_connect);
  if (error == 0) connecting(conn, opened, user);
  return error;
}

int weir_conn_connect_unix(weir_conn *conn, const char *path, weir_conn_opened opened, void *user) {
  connecting(conn, opened, user);
  uv_pipe_connect(&conn->connect, &conn->uv.pipe, path, on_connect);
  return 0;
}

int weir_conn_accept(weir_conn *conn, uv_stream_t *server) {
  int error = uv_accept(server, &conn->uv.stream);
  if (error == 0) established(conn);
  return error;
}

void weir_conn_join(weir_conn *a, weir_conn *b) {
  a->peer = b;
  b->peer = a;
  established(a);
  established(b);
}

bool weir_conn_ready(const weir_conn *conn) { return conn->state == READY; }

int weir_conn_attach(weir_conn *conn, weir_endpoint **slot, uint64_t linger,
                     weir_conn_closed closed, void *user) {
  if (conn->kind != WEIR_CONN_MEMORY) {
    int error = uv_read_start(&conn->uv.stream, on_alloc, on_read);
    if (error != 0) return error;
    conn->loop->touched = true;
  }
  conn->state = OPEN;
  conn->slot = slot;
  conn->linger = linger;
  conn->closed = closed;
  conn->user = user;
  (*slot)->wake = on_wake;
  (*slot)->driver = conn;
  weir_loop_mark(conn->loop, &conn->dirty);
  return 0;
}

void weir_conn_detach(weir_conn *conn) {
  conn->closed = NULL;
  let_go(conn, WEIR_E_CLOSED, false);
  shut(conn, WEIR_E_CLOSED, 0);
}

void weir_conn_close(weir_conn *conn) {
  weir_endpoint *endpoint = endpoint_of(conn);
  if (endpoint != NULL && conn->state < CLOSING) {
    uint64_t now = uv_hrtime();
    if (conn->kind == WEIR_CONN_MEMORY) {
      move_output(conn, endpoint, now);
    } else if (conn->rest == NULL) {
      write_output(conn, endpoint, now);
    }
  }
  shut(conn, WEIR_E_CLOSED, 0);
}

weir_conn_stats weir_conn_stat(const weir_conn *conn) { return conn->stats; }

int weir_sockaddr_name(const struct sockaddr *address, char *host, size_t size, int *port) {
  if (address->sa_family == AF_INET) {
    const struct sockaddr_in *in = (const void *)address;
    *port = ntohs(in->sin_port);
    return uv_ip4_name(in, host, size);
  }
  if (address->sa_family == AF_INET6) {
    const struct sockaddr_in6 *in6 = (const void *)address;
    *port = ntohs(in6->sin6_port);
    return uv_ip6_name(in6, host, size);
  }
  return UV_EAFNOSUPPORT;
}

int weir_conn_peer(const weir_conn *conn, char *host, size_t size, int *port) {
  *port = 0;
  if (size > 0) host[0] = '\0';
  if (conn->kind != WEIR_CONN_TCP || conn->state < READY || conn->state >= CLOSING) return 0;
  struct sockaddr_storage address;
  int len = sizeof address;
  int error = uv_tcp_getpeername(&conn->uv.tcp, (struct sockaddr *)&address, &len);
  return error != 0 ? error : weir_sockaddr_name((struct sockaddr *)&address, host, size, port);
}
