/*
 * weir_loop: weir's own libuv loop, to be driven from the loop that the program runs.
 *
 * weir does not put handles on somebody else's loop. It has one of its own, whose descriptor
 * (weir_loop_fd) the program's loop watches for reading: then neither libuv's ABI nor the meaning
 * of handle->data is shared with anybody. The driver's duties, each turn of the program's loop:
 *
 *   - the descriptor is readable or weir_loop_deadline() is reached: weir_loop_poll();
 *   - before the program's loop blocks: weir_loop_flush(), again while it says that it is busy;
 *   - the program's loop may end when weir_loop_alive() is false.
 *
 * Endpoints that wake while neither of the two runs make the descriptor readable, unless
 * weir_loop_hold() promised that a flush will follow; so output never waits for something else to
 * happen. Everything that is queued between two flushes leaves in as few writes as possible.
 *
 * Functions that are called back run inside weir_loop_poll(), weir_loop_flush() or the call that
 * they belong to, never inside weir_loop_close(). One thread at a time.
 */
#ifndef WEIR_IO_LOOP_H
#define WEIR_IO_LOOP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include "core/list.h"
#include "core/time.h"
#include "core/timers.h"

/* One buffer for all reads: feed() consumes what is in it, so that it stays in the cache. */
#define WEIR_LOOP_BUFFER (64u * 1024u)

/* What a timer of the loop calls: the token of a timer in weir_loop.timers is one of these. */
typedef struct weir_alarm {
  void (*due)(struct weir_alarm *alarm, uint64_t now);
} weir_alarm;

/* Something to be done once, in the next flush. */
typedef struct weir_chore {
  weir_link link; /* initialised by its owner, who removes it when it must not run any more */
  void (*run)(struct weir_chore *chore);
} weir_chore;

/* What the loop knows of the things on it: how to end them when it is closed. First member of each,
 * linked in weir_loop.owned while it has handles or requests. */
typedef struct weir_io {
  weir_link link;
  /* Releases it as its own free function would: no callback follows. */
  void (*release)(struct weir_io *io);
} weir_io;

typedef struct weir_loop {
  uv_loop_t uv;
  uv_async_t kick;
  weir_timers timers; /* token: a weir_alarm */
  weir_list owned;    /* of weir_io */
  weir_list dirty;    /* connections that may have output */
  weir_list ended;    /* connections whose peer will send no more */
  weir_list chores;   /* of weir_chore */
  unsigned char *buffer;
  unsigned char *spare; /* a block of WEIR_LOOP_BUFFER bytes that nobody uses, or NULL */
  size_t writes;        /* uv_write() requests in flight */
  size_t pending;       /* requests that keep the loop alive, whatever handles they have */
  bool held;            /* a flush will follow: endpoints need not kick */
  bool kicked;
  bool touched; /* libuv has something to register or to finish: run before blocking */
  bool fed;     /* something happened since the last flush returned */
} weir_loop;

/* A libuv error (negative) or 0; a loop that could not be made needs no close. */
int weir_loop_init(weir_loop *loop);
/* Ends all that is on the loop and waits until libuv has let go of it. A name resolution in
 * progress cannot be interrupted: it is waited for. */
void weir_loop_close(weir_loop *loop);

int weir_loop_fd(const weir_loop *loop);
/* Takes what libuv and the timers have, without blocking. */
void weir_loop_poll(weir_loop *loop);
/* Moves the output of endpoints that woke and lets libuv register what was begun. True: busy, call
 * it again soon (something arrived, or there was more to write than one go allows). */
bool weir_loop_flush(weir_loop *loop);
/* weir_loop_flush() will follow, whatever happens. */
void weir_loop_hold(weir_loop *loop);
/* When the next connection wants to know the time (uv_hrtime() units), or WEIR_NEVER. */
uint64_t weir_loop_deadline(const weir_loop *loop);
/* Whether there is a connection, listener or request. */
bool weir_loop_alive(const weir_loop *loop);

/* For the files of this folder and of csrc/brokers, whose modules are others: hence in the header.
 */

/* Lets something be ended by weir_loop_close(). */
static inline void weir_loop_own(weir_loop *loop, weir_io *io, void (*release)(weir_io *io)) {
  weir_list_init(&io->link);
  weir_list_append(&loop->owned, &io->link);
  io->release = release;
}

/* Makes the descriptor readable unless a flush will follow anyway. */
static inline void weir_loop_kick(weir_loop *loop) {
  if (loop->held || loop->kicked) return;
  loop->kicked = true;
  uv_async_send(&loop->kick);
}

/* A handle or request was begun: libuv has something to register. */
static inline void weir_loop_touch(weir_loop *loop) {
  loop->touched = true;
  weir_loop_kick(loop);
}

/* Has the next flush run the chore, or the one that runs now, in a later round. */
static inline void weir_loop_soon(weir_loop *loop, weir_chore *chore) {
  if (!weir_list_linked(&chore->link)) weir_list_append(&loop->chores, &chore->link);
  weir_loop_kick(loop);
}

void weir_loop_mark(weir_loop *loop, weir_link *link);
/* A block of WEIR_LOOP_BUFFER bytes, or NULL; give it back with weir_loop_return(). */
unsigned char *weir_loop_borrow(weir_loop *loop);
void weir_loop_return(weir_loop *loop, unsigned char *block);

#endif
