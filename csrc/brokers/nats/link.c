#define _GNU_SOURCE /* SCHED_BATCH */
#include "brokers/nats/link.h"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "io/sigpipe.h"

#define CONNECTING_AGAIN_MIN 1 /* milliseconds */

/* A socket of libnats that is polled: by a descriptor of our own, since libnats closes its whenever
 * it likes, and the number may then be another connection's. */
typedef struct watch {
  uv_poll_t poll;
  weir_nats_link *link;
  int fd;
  int events; /* that are polled for */
} watch;

/* What other threads write, under `mutex`. */
typedef struct shared {
  natsConnection *nc; /* that the socket belongs to */
  int fd;             /* a new socket to poll, or -1 */
  bool read;          /* it is to be read */
  bool write;         /* there is something to write */
  bool attached, detached;
  bool closed;       /* libnats is done with the connection */
  uint64_t changes;  /* of the report */
  natsMsg **answers; /* WEIR_NATS_ANSWERS, or NULL without an inbox */
  size_t count;
  bool answering; /* the inbox is served */
  bool deaf;      /* answers are thrown away */
  weir_nats_report report;
} shared;

struct weir_nats_link {
  weir_io io; /* first member */
  weir_chore chore;
  weir_loop *loop;
  uv_thread_t thread;
  const weir_nats_events *events; /* NULL: nobody listens any more */
  void *user;

  uv_async_t async;
  uv_work_t work; /* connecting, then closing */
  natsOptions *opts;
  natsConnection *nc;
  natsStatus connect_status;
  char connect_text[WEIR_NATS_TEXT];
  bool working;
  bool closing, close_begun, close_ended;
  int handles; /* that are not closed yet, once they are being closed */
  watch *watch;
  uint64_t reads;
  uint64_t changes; /* that the user was told of */

  weir_backoff backoff; /* the thread that connects again has it */
  uint64_t random;

  natsSubscription *inbox;
  natsMsg **answers; /* taken from the thread of the inbox: next_answer .. answer_count are left */
  size_t next_answer, answer_count;
  uv_mutex_t mutex;
  uv_cond_t room; /* in the ring of answers */
  shared shared;
};

static void advance(weir_nats_link *link);

static void copy_text(char *to, const char *from) {
  snprintf(to, WEIR_NATS_TEXT, "%s", from != NULL ? from : "");
}

static bool in_loop(const weir_nats_link *link) {
  uv_thread_t self = uv_thread_self();
  return uv_thread_equal(&self, &link->thread) != 0;
}

/* --- called by libnats, in any thread, its connection being locked -------------------------------
 *
 * The loop is woken before the mutex is released: it may free the link once it has seen the rest.
 */

static natsStatus on_attach(void **user, void *arg, natsConnection *nc, natsSock socket) {
  weir_nats_link *link = arg;
  /* Programs that are started by this one are not to have them. */
  int fd = fcntl(socket, F_DUPFD_CLOEXEC, 0);
  if (fd < 0 || fcntl(socket, F_SETFD, FD_CLOEXEC) != 0) {
    if (fd >= 0) close(fd);
    return NATS_SYS_ERROR;
  }
  uv_mutex_lock(&link->mutex);
  if (link->shared.fd >= 0) close(link->shared.fd);
  link->shared.fd = fd;
  link->shared.nc = nc;
  link->shared.read = true;
  link->shared.write = false;
  link->shared.attached = true;
  uv_async_send(&link->async);
  uv_mutex_unlock(&link->mutex);
  *user = link;
  return NATS_OK;
}

static natsStatus on_read(void *user, bool add) {
  weir_nats_link *link = user;
  uv_mutex_lock(&link->mutex);
  link->shared.read = add;
  uv_async_send(&link->async);
  uv_mutex_unlock(&link->mutex);
  return NATS_OK;
}

static natsStatus on_write(void *user, bool add) {
  weir_nats_link *link = user;
  uv_mutex_lock(&link->mutex);
  link->shared.write = add;
  if (!in_loop(link)) uv_async_send(&link->async);
  uv_mutex_unlock(&link->mutex);
  if (add && in_loop(link)) weir_loop_soon(link->loop, &link->chore);
  return NATS_OK;
}

static natsStatus on_detach(void *user) {
  weir_nats_link *link = user;
  uv_mutex_lock(&link->mutex);
  link->shared.detached = true;
  link->shared.read = link->shared.write = false;
  uv_async_send(&link->async);
  uv_mutex_unlock(&link->mutex);
  return NATS_OK;
}

/* --- called in libnats' thread for callbacks
 * ------------------------------------------------------ */

static void set_state(weir_nats_link *link, weir_nats_state state, natsConnection *nc) {
  const char *text = NULL;
  natsStatus status = state == WEIR_NATS_UP ? NATS_OK : natsConnection_GetLastError(nc, &text);
  uv_mutex_lock(&link->mutex);
  weir_nats_report *report = &link->shared.report;
  report->state = state;
  report->status = status;
  copy_text(report->text, text);
  if (state == WEIR_NATS_UP) report->reconnects++;
  if (state == WEIR_NATS_CLOSED) link->shared.closed = true;
  link->shared.changes++;
  uv_async_send(&link->async);
  uv_mutex_unlock(&link->mutex);
}

static void on_disconnected(natsConnection *nc, void *arg) { set_state(arg, WEIR_NATS_DOWN, nc); }

static void on_reconnected(natsConnection *nc, void *arg) { set_state(arg, WEIR_NATS_UP, nc); }

/* The last callback about a connection. */
static void on_closed(natsConnection *nc, void *arg) { set_state(arg, WEIR_NATS_CLOSED, nc); }

static void on_error(natsConnection *nc, natsSubscription *sub, natsStatus status, void *arg) {
  weir_nats_link *link = arg;
  const char *text = NULL;
  (void)sub;
  if (status != NATS_SLOW_CONSUMER) (void)natsConnection_GetLastError(nc, &text);
  uv_mutex_lock(&link->mutex);
  weir_nats_report *report = &link->shared.report;
  report->faults++;
  link->shared.changes++;
  report->fault = status;
  copy_text(report->fault_text,
            text != NULL && text[0] != '\0' ? text : natsStatus_GetText(status));
  uv_async_send(&link->async);
  uv_mutex_unlock(&link->mutex);
}

/* --- answers: called in the thread of the inbox
 * ---------------------------------------------------- */

static void on_answer(natsConnection *nc, natsSubscription *sub, natsMsg *msg, void *arg) {
  weir_nats_link *link = arg;
  shared *to = &link->shared;
  (void)nc;
  (void)sub;
  uv_mutex_lock(&link->mutex);
  while (to->count == WEIR_NATS_ANSWERS && !to->deaf)
    uv_cond_wait(&link->room, &link->mutex);
  if (!to->deaf) {
    if (to->count == 0) uv_async_send(&link->async);
    to->answers[to->count++] = msg;
    msg = NULL;
  }
  uv_mutex_unlock(&link->mutex);
  natsMsg_Destroy(msg);
}

/* The thread ends. */
static void on_complete(void *arg) {
  weir_nats_link *link = arg;
  uv_mutex_lock(&link->mutex);
  link->shared.answering = false;
  uv_async_send(&link->async);
  uv_mutex_unlock(&link->mutex);
}

/* Exchanges the list that was taken from for the one that the thread fills. */
static void exchange_answers(weir_nats_link *link) {
  shared *from = &link->shared;
  uv_mutex_lock(&link->mutex);
  natsMsg **full = from->answers;
  from->answers = link->answers;
  link->answers = full;
  link->answer_count = from->count;
  link->next_answer = 0;
  if (from->count == WEIR_NATS_ANSWERS) uv_cond_signal(&link->room);
  from->count = 0;
  uv_mutex_unlock(&link->mutex);
}

natsMsg *weir_nats_link_answer(weir_nats_link *link) {
  if (link->answers == NULL) return NULL;
  if (link->next_answer == link->answer_count) exchange_answers(link);
  return link->next_answer < link->answer_count ? link->answers[link->next_answer++] : NULL;
}

natsStatus weir_nats_link_inbox(weir_nats_link *link, const char *subject) {
  natsConnection *nc = weir_nats_link_connection(link);
  if (nc == NULL) return NATS_CONNECTION_CLOSED;
  if (link->inbox != NULL) return NATS_ILLEGAL_STATE;
  link->answers = calloc(WEIR_NATS_ANSWERS, sizeof(natsMsg *));
  natsMsg **filled = calloc(WEIR_NATS_ANSWERS, sizeof(natsMsg *));
  if (link->answers == NULL || filled == NULL) {
    free(link->answers);
    free(filled);
    link->answers = NULL;
    return NATS_NO_MEMORY;
  }
  uv_mutex_lock(&link->mutex);
  link->shared.answers = filled;
  uv_mutex_unlock(&link->mutex);
  natsStatus status = natsConnection_Subscribe(&link->inbox, nc, subject, on_answer, link);
  if (status != NATS_OK) return status;
  link->shared.answering =
      true; /* the subscription has got nothing yet: it is read by this thread */
  return natsSubscription_SetOnCompleteCB(link->inbox, on_complete, link);
}

/* Lets the thread of the inbox end. */
static void close_inbox(weir_nats_link *link) {
  uv_mutex_lock(&link->mutex);
  link->shared.deaf = true;
  uv_cond_broadcast(&link->room);
  uv_mutex_unlock(&link->mutex);
  if (link->inbox != NULL) natsSubscription_Destroy(link->inbox);
  link->inbox = NULL;
}

/* Milliseconds until every server is tried again; in the thread that does that. */
static int64_t on_delay(natsConnection *nc, int attempts, void *arg) {
  weir_nats_link *link = arg;
  uint64_t delay = 0;
  (void)nc;
  if (attempts <= 1) weir_backoff_reset(&link->backoff);
  (void)weir_backoff_next(&link->backoff, uv_hrtime(), weir_backoff_random(&link->random), &delay);
  int64_t milliseconds = (int64_t)(delay / 1000000);
  return milliseconds > CONNECTING_AGAIN_MIN ? milliseconds : CONNECTING_AGAIN_MIN;
}

/* --- the socket
 * ----------------------------------------------------------------------------------- */

static void on_watch_closed(uv_handle_t *handle) {
  watch *w = (watch *)handle->data;
  close(w->fd);
  w->link->handles--;
  advance(w->link);
  free(w);
}

static void unwatch(weir_nats_link *link) {
  if (link->watch == NULL) return;
  link->handles++;
  uv_close((uv_handle_t *)&link->watch->poll, on_watch_closed);
  link->watch = NULL;
}

static void read_shared(weir_nats_link *link, shared *out) {
  uv_mutex_lock(&link->mutex);
  *out = link->shared;
  uv_mutex_unlock(&link->mutex);
}

static void on_poll(uv_poll_t *poll, int status, int events);

/* Polls for what libnats wants. */
static void poll_for(weir_nats_link *link, int events) {
  watch *w = link->watch;
  if (w == NULL || w->events == events) return;
  w->events = events;
  weir_loop_touch(link->loop);
  if (events == 0) {
    uv_poll_stop(&w->poll);
  } else {
    uv_poll_start(&w->poll, events, on_poll);
  }
}

/* Writes what there is; polls until the rest can be written. */
static void write_out(weir_nats_link *link) {
  shared now;
  read_shared(link, &now);
  if (!now.write || link->watch == NULL) return;
  weir_sigpipe hold;
  weir_sigpipe_hold(&hold);
  natsConnection_ProcessWriteEvent(now.nc);
  weir_sigpipe_release(&hold);
  read_shared(link, &now);
  poll_for(link, (now.read ? UV_READABLE : 0) | (now.write ? UV_WRITABLE : 0));
  if (!now.write && link->events != NULL) link->events->drained(link->user);
}

static void on_poll(uv_poll_t *poll, int status, int events) {
  watch *w = (watch *)poll->data;
  weir_nats_link *link = w->link;
  shared now;
  read_shared(link, &now);
  link->loop->fed = true;
  if (now.read && (status != 0 || (events & (UV_READABLE | UV_DISCONNECT)) != 0)) {
    weir_sigpipe hold; /* a thread that connects again, begun in here, inherits the mask */
    weir_sigpipe_hold(&hold);
    natsConnection_ProcessReadEvent(now.nc);
    weir_sigpipe_release(&hold);
    link->reads++;
    if (link->events != NULL) link->events->readable(link->user);
  }
  if (link->watch == w && (events & UV_WRITABLE) != 0) write_out(link);
}

static void on_chore(weir_chore *chore) {
  weir_nats_link *link = weir_list_of(chore, weir_nats_link, chore);
  write_out(link);
}

/* A new socket: true unless it cannot be polled. */
static bool rewatch(weir_nats_link *link, int fd) {
  unwatch(link);
  watch *w = calloc(1, sizeof *w);
  if (w == NULL || uv_poll_init(&link->loop->uv, &w->poll, fd) != 0) {
    free(w);
    close(fd);
    return false;
  }
  w->poll.data = w;
  w->link = link;
  w->fd = fd;
  link->watch = w;
  return true;
}

static void on_async(uv_async_t *async) {
  weir_nats_link *link = weir_list_of(async, weir_nats_link, async);
  uv_mutex_lock(&link->mutex);
  int fd = link->shared.fd;
  link->shared.fd = -1;
  shared now = link->shared;
  uv_mutex_unlock(&link->mutex);
  link->loop->fed = true;
  if (fd >= 0 && !rewatch(link, fd)) weir_nats_link_close(link);
  if (now.detached) {
    unwatch(link);
  } else {
    poll_for(link, now.read ? UV_READABLE : 0);
    if (now.write) weir_loop_soon(link->loop, &link->chore);
  }
  bool changed = now.changes != link->changes;
  link->changes = now.changes;
  if (changed && link->events != NULL) link->events->changed(link->user);
  if (now.count > 0 && link->events != NULL) link->events->answered(link->user);
  advance(link);
}

/* --- the thread pool
 * -------------------------------------------------------------------------------- */

static void connect_job(uv_work_t *work) {
  weir_nats_link *link = weir_list_of(work, weir_nats_link, work);
  weir_sigpipe hold;
  weir_sigpipe_hold(&hold);
  link->connect_status = natsConnection_Connect(&link->nc, link->opts);
  if (link->connect_status != NATS_OK) {
    copy_text(link->connect_text, nats_GetLastError(NULL));
  }
  nats_ReleaseThreadMemory();
  weir_sigpipe_release(&hold);
}

static void connect_done(uv_work_t *work, int status) {
  weir_nats_link *link = weir_list_of(work, weir_nats_link, work);
  (void)status; /* it is never cancelled */
  link->working = false;
  uv_mutex_lock(&link->mutex);
  weir_nats_report *report = &link->shared.report;
  if (link->connect_status != NATS_OK) {
    report->state = WEIR_NATS_CLOSED;
    report->status = link->connect_status;
    memcpy(report->text, link->connect_text, sizeof report->text);
  } else if (report->state == WEIR_NATS_CONNECTING) {
    report->state = WEIR_NATS_UP;
  }
  uv_mutex_unlock(&link->mutex);
  link->loop->fed = true;
  if (link->events != NULL) link->events->changed(link->user);
  advance(link);
}

static void close_job(uv_work_t *work) {
  weir_nats_link *link = weir_list_of(work, weir_nats_link, work);
  weir_sigpipe hold;
  weir_sigpipe_hold(&hold);
  natsConnection_Close(link->nc);
  nats_ReleaseThreadMemory();
  weir_sigpipe_release(&hold);
}

static void close_done(uv_work_t *work, int status) {
  weir_nats_link *link = weir_list_of(work, weir_nats_link, work);
  (void)status;
  link->working = false;
  link->close_ended = true;
  link->loop->fed = true;
  advance(link);
}

/* --- life
 * -------------------------------------------------------------------------------------------- */

static void destroy(weir_nats_link *link) {
  weir_list_remove(&link->io.link);
  weir_list_remove(&link->chore.link);
  if (link->shared.fd >= 0) close(link->shared.fd);
  for (natsMsg *msg; (msg = weir_nats_link_answer(link)) != NULL;)
    natsMsg_Destroy(msg);
  free(link->shared.answers);
  free(link->answers);
  uv_cond_destroy(&link->room);
  uv_mutex_destroy(&link->mutex);
  natsOptions_Destroy(link->opts);
  free(link);
}

static void on_async_closed(uv_handle_t *handle) {
  weir_nats_link *link = weir_list_of((uv_async_t *)(void *)handle, weir_nats_link, async);
  link->handles--;
  advance(link);
}

/* Whether libnats will call no more, and the user knows all that it said. */
static bool is_over(weir_nats_link *link) {
  shared now;
  if (link->nc == NULL) return true;
  read_shared(link, &now);
  if (link->events != NULL && now.changes != link->changes) return false; /* on_async() follows */
  return link->close_ended && now.closed && !now.answering && (!now.attached || now.detached);
}

/* Takes the next step towards the end, if it is time. */
static void advance(weir_nats_link *link) {
  if (!link->closing || link->working) return;
  if (link->nc != NULL && !link->close_begun) {
    link->close_begun = true;
    close_inbox(link);
    link->working = uv_queue_work(&link->loop->uv, &link->work, close_job, close_done) == 0;
    weir_loop_touch(link->loop);
    return;
  }
  if (!is_over(link)) return;
  if (link->nc != NULL) {
    natsConnection_Destroy(link->nc);
    link->nc = NULL;
  }
  unwatch(link);
  if (!uv_is_closing((uv_handle_t *)&link->async)) {
    link->handles++;
    weir_loop_touch(link->loop);
    uv_close((uv_handle_t *)&link->async, on_async_closed);
  } else if (link->handles == 0 && link->events == NULL) {
    destroy(link);
  }
}

static void on_release(weir_io *io) { weir_nats_link_free((weir_nats_link *)io); }

static bool configure(weir_nats_link *link) {
  natsOptions *opts = link->opts;
  return natsOptions_SetEventLoop(opts, link, on_attach, on_read, on_write, on_detach) == NATS_OK &&
         natsOptions_SetDisconnectedCB(opts, on_disconnected, link) == NATS_OK &&
         natsOptions_SetReconnectedCB(opts, on_reconnected, link) == NATS_OK &&
         natsOptions_SetClosedCB(opts, on_closed, link) == NATS_OK &&
         natsOptions_SetErrorHandler(opts, on_error, link) == NATS_OK &&
         natsOptions_SetCustomReconnectDelay(opts, on_delay, link) == NATS_OK &&
         /* otherwise a thread waits for a millisecond to say that there is something to write */
         natsOptions_SetSendAsap(opts, true) == NATS_OK;
}

#ifdef SCHED_BATCH
/* Changes the policy by which this thread, and those that it begins, are scheduled. libnats has a
 * thread that frees messages, which it wakes for the first that it gets: on a busy processor it
 * would take the place of the one that is about to give it the next, and so for each message. A
 * thread for batches waits for its turn. */
static bool set_policy(int from, int to) {
  struct sched_param none = {0};
  return sched_getscheduler(0) == from && sched_setscheduler(0, to, &none) == 0;
}
#endif

bool weir_nats_open(void) {
  struct sigaction before;
  weir_sigpipe hold;
  if (sigaction(SIGPIPE, NULL, &before) != 0) return false;
  weir_sigpipe_hold(&hold);
#ifdef SCHED_BATCH
  bool gentle = set_policy(SCHED_OTHER, SCHED_BATCH);
#endif
  natsStatus status = nats_Open(-1);
#ifdef SCHED_BATCH
  if (gentle) (void)set_policy(SCHED_BATCH, SCHED_OTHER);
#endif
  (void)sigaction(SIGPIPE, &before, NULL);
  weir_sigpipe_release(&hold);
  return status == NATS_OK;
}

weir_nats_link *weir_nats_link_new(weir_loop *loop, natsOptions *opts,
                                   const weir_backoff_config *backoff,
                                   const weir_nats_events *events, void *user) {
  weir_nats_link *link = calloc(1, sizeof *link);
  if (link == NULL) {
    natsOptions_Destroy(opts);
    return NULL;
  }
  link->loop = loop;
  link->opts = opts;
  link->thread = uv_thread_self();
  link->shared.fd = -1;
  link->random = uv_hrtime() ^ (uint64_t)(uintptr_t)link;
  link->chore.run = on_chore;
  weir_list_init(&link->chore.link);
  if (weir_backoff_init(&link->backoff, backoff) != WEIR_OK || uv_mutex_init(&link->mutex) != 0) {
    natsOptions_Destroy(opts);
    free(link);
    return NULL;
  }
  if (uv_cond_init(&link->room) != 0) abort(); /* as libuv does for its own: no memory is needed */
  weir_loop_own(loop, &link->io, on_release);
  if (!configure(link) || uv_async_init(&loop->uv, &link->async, on_async) != 0) {
    destroy(link);
    return NULL;
  }
  weir_loop_touch(loop);
  if (uv_queue_work(&loop->uv, &link->work, connect_job, connect_done) != 0) {
    weir_nats_link_free(link);
    return NULL;
  }
  link->working = true;
  link->events = events;
  link->user = user;
  return link;
}

void weir_nats_link_close(weir_nats_link *link) {
  if (link->closing) return;
  link->closing = true;
  advance(link);
}

void weir_nats_link_free(weir_nats_link *link) {
  link->events = NULL;
  link->closing = true;
  advance(link);
}

natsConnection *weir_nats_link_connection(const weir_nats_link *link) {
  return link->closing || link->working ? NULL : link->nc;
}

void weir_nats_link_report(weir_nats_link *link, weir_nats_report *report) {
  uv_mutex_lock(&link->mutex);
  *report = link->shared.report;
  uv_mutex_unlock(&link->mutex);
}

uint64_t weir_nats_link_reads(const weir_nats_link *link) { return link->reads; }
