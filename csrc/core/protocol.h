/*
 * The weir stream protocol, version 1: the frames inside a yamux stream (docs/wire.md).
 *
 * A codec only: functions that write one frame into memory of the caller and functions that read
 * one frame's payload into a structure whose slices borrow from it. Nothing here allocates or keeps
 * state; the length prefix is taken off by weir_frame_reader.
 *
 * Everything is big endian. A frame is
 *
 *     length:u32  type:u8  flags:u8  reserved:u16  body
 *
 * where `length` counts what follows it. The first stream that the connecting side opens is the
 * control stream (HELLO, ANNOUNCE); each other stream is one subscription, opened by the consumer.
 */
#ifndef WEIR_PROTOCOL_H
#define WEIR_PROTOCOL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/buf.h"
#include "core/status.h"

#define WEIR_PROTOCOL_VERSION 1
#define WEIR_ID_SIZE 32         /* network, node and stream ids */
#define WEIR_PREAMBLE 8         /* length, type, flags, reserved */
#define WEIR_DATA_HEADER 32     /* a DATA frame up to its payload */
#define WEIR_MAX_CONTROL 16384u /* longest frame that is not DATA, without its length field */
#define WEIR_MAX_REASON 1024u   /* longest reason text, bytes */
#define WEIR_MAX_TAGS 64u
#define WEIR_MAX_NAME 64u /* longest tag, codec or schema id, bytes */
#define WEIR_MAX_CRITERIA 8192u
#define WEIR_MAX_TOKEN 4096u
/* The longest message that any limit may be set to. */
#define WEIR_MAX_MESSAGE (256u * 1024u * 1024u)

typedef enum weir_frame_type {
  WEIR_FRAME_HELLO = 0x01,     /* control: who I am */
  WEIR_FRAME_ANNOUNCE = 0x02,  /* control: what I produce */
  WEIR_FRAME_SUBSCRIBE = 0x10, /* consumer: the first frame of a subscription */
  WEIR_FRAME_START = 0x11,     /* producer: accepted */
  WEIR_FRAME_DATA = 0x12,      /* producer: one message */
  WEIR_FRAME_GAP = 0x13,       /* producer: these messages will not come */
  WEIR_FRAME_SYNC = 0x14,      /* producer: acknowledge as soon as you have taken these */
  WEIR_FRAME_CREDIT = 0x15,    /* consumer: what I have taken and how much more may come */
  WEIR_FRAME_CLOSE = 0x1f      /* either: the end, and why */
} weir_frame_type;

/* Frames of a type with this bit are skipped by those who do not know them. */
#define WEIR_FRAME_IGNORABLE 0x80u

/* Close codes: mosaik's numbers, and our own for what it has no number for (marked +). */
typedef enum weir_close_code {
  WEIR_CLOSE_BAD_VERSION = 100,
  WEIR_CLOSE_WRONG_NETWORK = 101,
  WEIR_CLOSE_CANCELLED = 102,
  WEIR_CLOSE_UNEXPECTED = 103,
  WEIR_CLOSE_TIMEOUT = 104, /* + */
  WEIR_CLOSE_SUCCESS = 200,
  WEIR_CLOSE_SHUTDOWN = 204,
  WEIR_CLOSE_PROTOCOL = 400,
  WEIR_CLOSE_UNKNOWN_PEER = 401,
  WEIR_CLOSE_NOT_ALLOWED = 10403,
  WEIR_CLOSE_NOT_FOUND = 10404,
  WEIR_CLOSE_TOO_SLOW = 10413,
  WEIR_CLOSE_WRONG_CODEC = 10415, /* + */
  WEIR_CLOSE_NO_CAPACITY = 10509
} weir_close_code;

/* The stable name of a close code ("too_slow"), or "closed" for one that is unknown. */
const char *weir_close_name(uint32_t code);

typedef struct weir_hello {
  uint16_t version_min, version_max; /* an answer names the one version chosen in both */
  unsigned char network[WEIR_ID_SIZE];
  unsigned char node[WEIR_ID_SIZE];
  weir_slice tags[WEIR_MAX_TAGS];
  size_t tag_count;
  weir_slice agent; /* program and version, for people; may be empty */
} weir_hello;

typedef struct weir_subscribe {
  uint16_t version;
  unsigned char network[WEIR_ID_SIZE];
  unsigned char stream[WEIR_ID_SIZE];
  weir_slice codec;
  weir_slice schema; /* may be empty, as the next two */
  weir_slice criteria;
  weir_slice token;
  bool has_resume; /* the consumer has had everything before this position */
  uint64_t resume_epoch, resume_sequence;
  uint64_t credit_bytes, credit_items; /* limits, as in CREDIT */
} weir_subscribe;

typedef struct weir_start {
  uint16_t version;
  unsigned char network[WEIR_ID_SIZE];
  unsigned char stream[WEIR_ID_SIZE];
  weir_slice codec;
  weir_slice schema;
  uint64_t epoch, sequence; /* the position of the first message that can come */
} weir_start;

typedef struct weir_data {
  uint64_t epoch, sequence;
  uint64_t time; /* when it was sent: microseconds since 1970 */
  weir_slice payload;
} weir_data;

/* Cumulative since the start of the subscription; limits never go back. Bytes are those of DATA
 * frames, headers included. A producer that has used less than both limits may send one message. */
typedef struct weir_grant {
  uint64_t epoch, acknowledged; /* everything before this sequence has been taken */
  uint64_t limit_bytes, limit_items;
} weir_grant;

typedef struct weir_gap {
  uint64_t epoch, from, to; /* from is the first that is missing, to the first that is not */
} weir_gap;

typedef struct weir_sync {
  uint64_t epoch, sequence;
} weir_sync;

typedef struct weir_closing {
  uint32_t code;
  weir_slice reason; /* UTF-8, for people */
} weir_closing;

typedef struct weir_announcement {
  bool add;                    /* else: no longer produced */
  const unsigned char *stream; /* WEIR_ID_SIZE bytes, borrowed */
} weir_announcement;

/* Room that any frame other than DATA needs at most. */
typedef struct weir_frame_buffer {
  unsigned char bytes[WEIR_MAX_CONTROL + 4];
  size_t len;
} weir_frame_buffer;

/* Writers: `frame` then holds one whole frame. WEIR_E_LIMIT when a field is longer than allowed. */
weir_status weir_write_hello(weir_frame_buffer *frame, const weir_hello *hello);
weir_status weir_write_subscribe(weir_frame_buffer *frame, const weir_subscribe *subscribe);
weir_status weir_write_start(weir_frame_buffer *frame, const weir_start *start);
/* As many of the `count` ids (WEIR_ID_SIZE bytes each) as fit; returns how many. */
size_t weir_write_announce(weir_frame_buffer *frame, bool add, const unsigned char *ids,
                           size_t count);

/* Small frames of fixed size, and CLOSE: into `out`, which has room for the size named. They return
 * the bytes written. */
#define WEIR_GRANT_SIZE (WEIR_PREAMBLE + 32)
#define WEIR_GAP_SIZE (WEIR_PREAMBLE + 24)
#define WEIR_SYNC_SIZE (WEIR_PREAMBLE + 16)
#define WEIR_CLOSE_SIZE (WEIR_PREAMBLE + 4 + WEIR_MAX_REASON)
size_t weir_write_grant(unsigned char *out, const weir_grant *grant);
size_t weir_write_gap(unsigned char *out, const weir_gap *gap);
size_t weir_write_sync(unsigned char *out, const weir_sync *sync);
/* A reason that is too long is cut at a character's edge. */
size_t weir_write_close(unsigned char *out, uint32_t code, const char *reason, size_t reason_len);
/* The header of a DATA frame with a payload of `payload_len` bytes: WEIR_DATA_HEADER bytes. */
void weir_write_data_header(unsigned char *out, uint64_t epoch, uint64_t sequence, uint64_t time,
                            size_t payload_len);

/* The type of a frame payload (what follows the length field), or -1 when it is too short. */
int weir_frame_type_of(const unsigned char *payload, size_t len);

/* Readers: `payload` is a frame without its length field. WEIR_E_PROTOCOL on anything malformed,
 * WEIR_E_VERSION when the magic is right and the version is not ours. Slices borrow from payload.
 */
weir_status weir_read_hello(const unsigned char *payload, size_t len, weir_hello *hello);
weir_status weir_read_subscribe(const unsigned char *payload, size_t len, weir_subscribe *out);
weir_status weir_read_start(const unsigned char *payload, size_t len, weir_start *start);
weir_status weir_read_data(const unsigned char *payload, size_t len, weir_data *data);
weir_status weir_read_grant(const unsigned char *payload, size_t len, weir_grant *grant);
weir_status weir_read_gap(const unsigned char *payload, size_t len, weir_gap *gap);
weir_status weir_read_sync(const unsigned char *payload, size_t len, weir_sync *sync);
weir_status weir_read_close(const unsigned char *payload, size_t len, weir_closing *closing);
/* Announcements are read one by one: *at starts at 0. WEIR_E_AGAIN at the end. */
weir_status weir_read_announce(const unsigned char *payload, size_t len, size_t *at,
                               weir_announcement *announcement);

#endif
