/*
 * Messages of libnats for Lua, and back.
 *
 * A message is copied once, into Lua strings, and natsMsg is given back: nothing of libnats
 * outlives the call. Names of headers are in lower case in Lua; of a header with several values the
 * first counts.
 */
#ifndef WEIR_BROKERS_NATS_MESSAGE_H
#define WEIR_BROKERS_NATS_MESSAGE_H

#include <lauxlib.h>
#include <lua.h>
#include <nats/nats.h>
#include <stdbool.h>

/* Messages that were copied and are to be destroyed. libnats frees them in a thread of its own,
 * which it wakes for the first that it gets: so they are given back by the hundred, within the
 * bounds below. */
#define WEIR_NATS_BIN 1024
#define WEIR_NATS_BIN_BYTES (512 * 1024)
typedef struct weir_nats_bin {
  natsMsg *messages[WEIR_NATS_BIN];
  int count;
  size_t bytes;
} weir_nats_bin;

/* Takes the message. */
void weir_nats_bin_put(weir_nats_bin *bin, natsMsg *msg);
void weir_nats_bin_empty(weir_nats_bin *bin);

/* Names of fields, which methods have as upvalues from WEIR_NATS_KEYS on: a string that is there
 * already is cheaper than one that is looked up by its text for each message. */
typedef enum weir_nats_key {
  WEIR_NATS_PAYLOAD,
  WEIR_NATS_DESTINATION,
  WEIR_NATS_HEADERS,
  WEIR_NATS_ATTEMPTS,
  WEIR_NATS_POSITION,
  WEIR_NATS_CONSUMED,
  WEIR_NATS_TIME,
  WEIR_NATS_TOKEN,
  WEIR_NATS_REPLY_TO,
  WEIR_NATS_KEY_COUNT
} weir_nats_key;
#define WEIR_NATS_KEYS 2
/* Pushes the names, for upvalues. */
void weir_nats_push_keys(lua_State *L);

/* Pushes a table with `payload`, `destination`, `headers` and what else there is: `reply_to`,
 * `key`. `jetstream`: a subject for acknowledgements in place of the reply becomes `attempts`,
 * `position`, `time` (seconds since 1970), `token` (that subject) and `consumed`, the place in the
 * consumer. `headers`: index of the table that stands for none. False: it is no message of a
 * stream, but a report to the subscription; the table has its headers, and so its `status`. Only in
 * methods, because of the upvalues. */
bool weir_nats_push_message(lua_State *L, natsMsg *msg, bool jetstream, int headers);

/* Whether a subject may be published to: no white space, control characters, empty tokens or,
 * unless `pattern`, wildcards. */
bool weir_nats_subject_valid(const char *subject, size_t length, bool pattern);

/* Makes a message with the headers of the table at `index` (nil: none). On failure *msg is NULL and
 * the result says why, in words, naming the header. Adds to *bytes those of the headers. */
const char *weir_nats_make_message(lua_State *L, int index, natsMsg **msg, const char *subject,
                                   const char *reply, const char *payload, size_t length,
                                   size_t *bytes);

#endif
