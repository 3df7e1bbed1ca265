#include "io/loop.h"

#include <stdlib.h>

#include "io/conn.h"
#include "io/sigpipe.h"

/* Rounds of one flush: connections in memory feed each other, which makes new output. */
#define FLUSH_ROUNDS 16

static void on_kick(uv_async_t *async) {
  (void)async; /* it has done its work by making the descriptor readable */
}

int weir_loop_init(weir_loop *loop) {
  *loop = (weir_loop){.touched = true};
  weir_list_init(&loop->owned);
  weir_list_init(&loop->dirty);
  weir_list_init(&loop->ended);
  weir_list_init(&loop->chores);
  loop->buffer = malloc(WEIR_LOOP_BUFFER);
  if (loop->buffer == NULL) return UV_ENOMEM;
  int error = uv_loop_init(&loop->uv);
  if (error == 0) {
    error = uv_async_init(&loop->uv, &loop->kick, on_kick);
    if (error != 0) uv_loop_close(&loop->uv);
  }
  if (error != 0) {
    free(loop->buffer);
    return error;
  }
  uv_unref((uv_handle_t *)&loop->kick);
  weir_timers_init(&loop->timers, NULL);
  return 0;
}

void weir_loop_close(weir_loop *loop) {
  for (weir_link *link; (link = weir_list_first(&loop->owned)) != NULL;) {
    weir_io *io = weir_list_of(link, weir_io, link);
    weir_list_remove(link);
    io->release(io);
  }
  uv_close((uv_handle_t *)&loop->kick, NULL);
  do {
    uv_run(&loop->uv, UV_RUN_DEFAULT);
  } while (uv_loop_close(&loop->uv) == UV_EBUSY);
  weir_timers_free(&loop->timers);
  free(loop->buffer);
  free(loop->spare);
}

int weir_loop_fd(const weir_loop *loop) { return uv_backend_fd(&loop->uv); }

static void expire(weir_loop *loop) {
  uint64_t now = uv_hrtime();
  uint64_t token;
  while (weir_timers_expired(&loop->timers, now, NULL, &token)) {
    weir_alarm *alarm = (weir_alarm *)(uintptr_t)token;
    alarm->due(alarm, now);
  }
}

static void run(weir_loop *loop) {
  loop->touched = false;
  if (loop->writes == 0) {
    uv_run(&loop->uv, UV_RUN_NOWAIT);
    return;
  }
  weir_sigpipe hold;
  weir_sigpipe_hold(&hold);
  uv_run(&loop->uv, UV_RUN_NOWAIT);
  weir_sigpipe_release(&hold);
}

void weir_loop_poll(weir_loop *loop) {
  loop->held = true;
  run(loop);
  expire(loop);
}

/* Empties `list` of those that are in it now, and not of those that are put in meanwhile. */
static void each(weir_list *list, void (*visit)(weir_link *link, uint64_t now)) {
  uint64_t now = uv_hrtime();
  weir_list behind;
  weir_list_init(&behind);
  weir_list_append(list, &behind);
  for (weir_link *link; (link = weir_list_first(list)) != &behind;) {
    weir_list_remove(link);
    visit(link, now);
  }
  weir_list_remove(&behind);
}

static void flush_conn(weir_link *link, uint64_t now) {
  weir_conn_flush(weir_conn_of_dirty(link), now);
}

static void run_chore(weir_link *link, uint64_t now) {
  (void)now;
  weir_chore *chore = weir_list_of(link, weir_chore, link);
  chore->run(chore);
}

static bool has_work(const weir_loop *loop) {
  return !weir_list_empty(&loop->dirty) || !weir_list_empty(&loop->chores);
}

bool weir_loop_flush(weir_loop *loop) {
  loop->held = true;
  if (!weir_list_empty(&loop->ended)) each(&loop->ended, weir_conn_end);
  for (int i = 0; i < FLUSH_ROUNDS && has_work(loop); i++) {
    if (!weir_list_empty(&loop->chores)) each(&loop->chores, run_chore);
    if (!weir_list_empty(&loop->dirty)) each(&loop->dirty, flush_conn);
  }
  if (loop->touched) run(loop);
  bool busy = loop->fed || loop->touched || has_work(loop) || !weir_list_empty(&loop->ended);
  loop->fed = false;
  loop->kicked = false;
  loop->held = busy;
  return busy;
}

void weir_loop_hold(weir_loop *loop) { loop->held = true; }

uint64_t weir_loop_deadline(const weir_loop *loop) { return weir_timers_next(&loop->timers); }

bool weir_loop_alive(const weir_loop *loop) {
  return loop->pending > 0 || uv_loop_alive(&loop->uv) != 0;
}

void weir_loop_mark(weir_loop *loop, weir_link *link) {
  if (!weir_list_linked(link)) weir_list_append(&loop->dirty, link);
  weir_loop_kick(loop);
}

unsigned char *weir_loop_borrow(weir_loop *loop) {
  unsigned char *block = loop->spare;
  loop->spare = NULL;
  return block != NULL ? block : malloc(WEIR_LOOP_BUFFER);
}

void weir_loop_return(weir_loop *loop, unsigned char *block) {
  if (loop->spare == NULL) {
    loop->spare = block;
  } else {
    free(block);
  }
}
