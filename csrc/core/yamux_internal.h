/*
 * What the three parts of a yamux session share: yamux.c (its life, what comes in, time),
 * yamux_stream.c (streams, their table and queues) and yamux_frame.c (what goes out).
 *
 * A stream is in the session's table while it is open. When it ends, on_close is called and the
 * application forgets it; the structure may live on for a moment, either because frames of it are
 * still owed (see `lingering`) or because some function up the stack still looks at it: anything
 * that calls the application runs between weir_yamux_enter() and weir_yamux_leave(), and ended
 * streams are freed by the outermost leave.
 */
#ifndef WEIR_YAMUX_INTERNAL_H
#define WEIR_YAMUX_INTERNAL_H

#include "core/list.h"
#include "core/yamux.h"

enum {
  FRAME_DATA = 0,
  FRAME_WINDOW = 1,
  FRAME_PING = 2,
  FRAME_GO_AWAY = 3
};
enum {
  FLAG_SYN = 1,
  FLAG_ACK = 2,
  FLAG_FIN = 4,
  FLAG_RST = 8
};

#define MAX_PINGS_OWED 16           /* answers to pings that have not left yet */
#define MAX_REFUSALS_OWED 1024      /* RSTs for refused streams that have not left yet */
#define OUTPUT_LIMIT (256u * 1024u) /* bytes shown by output(); one frame may exceed it */
#define OUTPUT_RUNS 256             /* runs shown by output() */
#define STAGE_MIN 1024              /* bytes for headers and small payloads, at first ... */
#define STAGE_MAX 65536             /* ... and at most */
#define COPY_MAX 1024               /* runs below this are copied beside their frame's header */

struct weir_yamux_stream {
  weir_yamux *session;
  void *user;
  weir_link all;     /* of the open ones; after that of those to be freed */
  weir_link ready;   /* has data to send or wants to write, and the window is open */
  weir_link control; /* has a SYN, ACK, FIN, RST or window update to send */

  /* The send queue: a ring of slices, at first the one in the structure. */
  weir_slice *slices;
  weir_slice inline_slice;
  uint32_t slice_head, slice_count, slice_cap;
  uint32_t id;
  size_t queued; /* bytes in the ring */

  uint32_t send_window; /* bytes that the peer lets us send */
  uint32_t recv_window; /* bytes that we let the peer send */
  uint32_t unconsumed;  /* bytes the application got and has not given back */
  uint32_t grant;       /* bytes to add to recv_window with the next window update */

  bool owes_syn : 1, owes_ack : 1, owes_fin : 1, owes_rst : 1, owes_window : 1;
  bool unacked : 1;    /* ours, and the peer has not accepted it */
  bool unaccepted : 1; /* the peer's, and the application has not accepted it */
  bool fin_sent : 1, fin_received : 1;
  bool wants_write : 1;
  bool over : 1;      /* on_close was or is being called */
  bool lingering : 1; /* over, but frames of it are still owed */
};

typedef struct weir_yamux_run {
  const unsigned char *ptr;
  size_t len;
  weir_buf *buf; /* reference, or NULL for bytes in the stage */
} weir_yamux_run;

enum session_state {
  SESSION_OPEN,
  SESSION_CLOSING, /* weir_yamux_close(): what is queued leaves, then go-away */
  SESSION_FAILED,  /* only go-away leaves */
  SESSION_ENDED    /* the transport is gone */
};

struct weir_yamux {
  weir_endpoint endpoint; /* first */
  const weir_alloc *alloc;
  const weir_yamux_handler *handler;
  void *user;
  weir_yamux_config config; /* with its defaults filled in */
  enum session_state state;
  weir_status status; /* why it failed */
  char error[112];    /* the same for people */

  /* Streams */
  weir_yamux_stream **table; /* open addressing by id; NULL for none */
  uint32_t table_size, table_shift, table_used;
  uint64_t table_factor; /* odd; unknown to the peer, so that it cannot choose ids that collide */
  weir_yamux_stream *recent; /* the last one found */
  weir_list all, ready, control, dead;
  uint32_t ready_count;
  uint32_t lingering;
  uint32_t unacked, unaccepted; /* streams, see weir_yamux_stream */
  uint32_t next_id;             /* of our next stream; 0: used up */
  size_t unconsumed;
  unsigned depth; /* of enter() */
  weir_slab slab; /* copies of borrowed bytes */

  /* Input */
  unsigned char header[WEIR_YAMUX_HEADER];
  uint32_t header_len;
  uint32_t body_left; /* bytes of the data frame being read */
  uint16_t body_flags;
  weir_yamux_stream *body_stream; /* whose they are, NULL: nobody's, skip */

  /* Output */
  weir_yamux_run runs[OUTPUT_RUNS]; /* [run_head, run_tail) wait to be written */
  uint32_t run_head, run_tail;
  size_t pending; /* bytes in them */
  unsigned char *stage;
  uint32_t stage_size, stage_used;
  bool stage_short; /* it limited what was shown: make it larger when it is empty */
  bool signalled;   /* the driver knows that there is output */

  /* Session frames owed */
  uint32_t pings_owed[MAX_PINGS_OWED];
  uint32_t ping_count;
  uint32_t *refusals; /* stream ids to answer with RST */
  uint32_t refusal_count, refusal_cap;
  uint32_t go_away_code;
  bool go_away_owed, go_away_said, go_away_seen;
  uint32_t go_away_heard; /* its code */

  /* Pings and time */
  bool clock_known, owes_ping, ping_flying, pong_wanted;
  uint32_t ping_value;
  uint64_t ping_time;  /* when it was asked for, then when it was put in output */
  uint64_t heard_time; /* when the peer last said something */
  uint64_t rtt;
  uint64_t now;        /* of the last call */
  uint64_t close_time; /* when weir_yamux_close() was called */
};

#define STREAM_OF(link, member) weir_list_of(link, weir_yamux_stream, member)

/* yamux.c */
void weir_yamux_enter(weir_yamux *session);
void weir_yamux_leave(weir_yamux *session);
/* Ends the session for a fault: the streams get on_close(status), the peer a go-away with `code`.
 * Returns `status`. */
weir_status weir_yamux_fail(weir_yamux *session, weir_status status, uint32_t code,
                            const char *format, ...) __attribute__((format(printf, 4, 5)));

/* yamux_stream.c */
/* A stream in the table with the initial windows, or NULL. */
weir_yamux_stream *weir_yamux_stream_new(weir_yamux *session, uint32_t id);
weir_yamux_stream *weir_yamux_stream_find(weir_yamux *session, uint32_t id);
/* Ends a stream: on_close(reason). With `linger` it lives on until the frames it owes are out. */
void weir_yamux_stream_end(weir_yamux_stream *stream, weir_status reason, bool linger);
/* Ends a stream with RST to the peer. */
void weir_yamux_stream_reset(weir_yamux_stream *stream, weir_status reason);
/* Ends a stream that the application never got to know. */
void weir_yamux_stream_discard(weir_yamux_stream *stream);
/* Frees one that lingers. */
void weir_yamux_stream_drop(weir_yamux_stream *stream);
void weir_yamux_stream_free(weir_yamux_stream *stream);
/* Enters or leaves the lists according to what the stream has to send. */
void weir_yamux_schedule(weir_yamux_stream *stream);
void weir_yamux_schedule_control(weir_yamux_stream *stream);
/* Closes it when both sides are done. */
void weir_yamux_stream_settle(weir_yamux_stream *stream);
/* The first `len` bytes of the queue, at most its first slice, have been taken. */
void weir_yamux_queue_advance(weir_yamux_stream *stream, size_t len);
void weir_yamux_queue_clear(weir_yamux_stream *stream);
void weir_yamux_table_free(weir_yamux *session);

/* yamux_frame.c */
bool weir_yamux_output_init(weir_yamux *session);
void weir_yamux_output_free(weir_yamux *session);
/* Whether anything waits to be shown beyond what is shown already. */
bool weir_yamux_has_output(const weir_yamux *session);
/* Output appeared: tells the driver if it does not know. */
void weir_yamux_signal(weir_yamux *session);
size_t weir_yamux_output(weir_yamux *session, weir_iov *iov, size_t max, uint64_t now);
void weir_yamux_sent(weir_yamux *session, size_t len);

#endif
