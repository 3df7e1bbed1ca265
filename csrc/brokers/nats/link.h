/*
 * weir_nats_link: one connection of libnats on weir's loop.
 *
 * libnats is told to use an event loop of ours (natsOptions_SetEventLoop): bytes are read, parsed
 * and written in the loop's thread, so messages pass no other thread and publishing never blocks.
 * What libnats does in threads of its own (connecting again, pings, callbacks about the connection)
 * and what blocks (connecting, closing: done on libuv's thread pool) is handed over in a
 * record of fixed size under a mutex, and one uv_async wakes the loop.
 *
 * A link is made connecting. libnats connects it again after a loss, and restores its
 * subscriptions, until it is closed, by the program or by libnats (refused credentials, too many
 * attempts).
 *
 * Everything here is called in the loop's thread. The functions of weir_nats_events are called
 * inside weir_loop_poll() and weir_loop_flush() only, never after weir_nats_link_free().
 */
#ifndef WEIR_BROKERS_NATS_LINK_H
#define WEIR_BROKERS_NATS_LINK_H

#include <nats/nats.h>
#include <stdint.h>

#include "core/backoff.h"
#include "io/loop.h"

typedef enum weir_nats_state {
  WEIR_NATS_CONNECTING, /* for the first time */
  WEIR_NATS_UP,
  WEIR_NATS_DOWN, /* lost; it is being connected again */
  WEIR_NATS_CLOSED,
} weir_nats_state;

#define WEIR_NATS_TEXT 256

/* What is known of the connection. */
typedef struct weir_nats_report {
  weir_nats_state state;
  natsStatus status;         /* why it is not up */
  char text[WEIR_NATS_TEXT]; /* the same in words */
  uint64_t reconnects;
  uint64_t faults;  /* errors that did not end the connection ... */
  natsStatus fault; /* ... and the last of them */
  char fault_text[WEIR_NATS_TEXT];
} weir_nats_report;

typedef struct weir_nats_events {
  void (*changed)(void *user);  /* the report did */
  void (*readable)(void *user); /* subscriptions may have messages */
  void (*drained)(void *user);  /* everything published has been written */
  void (*answered)(void *user); /* there are answers: weir_nats_link_answer() */
} weir_nats_events;

typedef struct weir_nats_link weir_nats_link;

/* Starts libnats; to be called before anything else, any number of times. libnats would have the
 * whole process ignore SIGPIPE: that is undone, and its threads have the signal blocked instead. */
bool weir_nats_open(void);

/* Takes `opts`, in any case. NULL: out of memory, or libuv has no handles left. */
weir_nats_link *weir_nats_link_new(weir_loop *loop, natsOptions *opts,
                                   const weir_backoff_config *backoff,
                                   const weir_nats_events *events, void *user);
/* Begins to close. What was published is written if that takes less than half a second; to be sure,
 * wait for an answer of the server before. The report says "closed" when it is over. */
void weir_nats_link_close(weir_nats_link *link);
/* No more events. Closes, and frees the link when that is over. */
void weir_nats_link_free(weir_nats_link *link);

/* The connection; NULL unless it was up once and is not closed. */
natsConnection *weir_nats_link_connection(const weir_nats_link *link);
void weir_nats_link_report(weir_nats_link *link, weir_nats_report *report);
/* Subscribes to where answers to requests come, once in the life of a link. Reading them in the
 * loop's thread as other messages are read will not do: natsSubscription_NextMsg() keeps to itself
 * which request it was that has no responders. So a thread of libnats hands these over, in batches;
 * it waits while WEIR_NATS_ANSWERS of them have not been taken. */
natsStatus weir_nats_link_inbox(weir_nats_link *link, const char *subject);
#define WEIR_NATS_ANSWERS 4096
/* The next answer, for the caller to destroy, or NULL. */
natsMsg *weir_nats_link_answer(weir_nats_link *link);
/* How often something was read: unchanged, no subscription has got anything. */
uint64_t weir_nats_link_reads(const weir_nats_link *link);

#endif
