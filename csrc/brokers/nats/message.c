#include "brokers/nats/message.h"

#include <inttypes.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define ACK_PREFIX "$JS.ACK."
#define MAX_TOKENS 16

void weir_nats_bin_empty(weir_nats_bin *bin) {
  for (int i = 0; i < bin->count; i++)
    natsMsg_Destroy(bin->messages[i]);
  bin->count = 0;
  bin->bytes = 0;
}

void weir_nats_bin_put(weir_nats_bin *bin, natsMsg *msg) {
  bin->messages[bin->count++] = msg;
  bin->bytes += (size_t)natsMsg_GetDataLength(msg);
  if (bin->count == WEIR_NATS_BIN || bin->bytes >= WEIR_NATS_BIN_BYTES) weir_nats_bin_empty(bin);
}

/* Pushes the name in lower case. */
static void push_lower(lua_State *L, const char *name) {
  luaL_Buffer buffer;
  size_t length = strlen(name);
  char *to = luaL_buffinitsize(L, &buffer, length);
  for (size_t i = 0; i < length; i++) {
    unsigned char c = (unsigned char)name[i];
    to[i] = (char)(c >= 'A' && c <= 'Z' ? c + ('a' - 'A') : c);
  }
  luaL_pushresultsize(&buffer, length);
}

/* Pushes the headers, or the table that stands for none. */
static void push_headers(lua_State *L, natsMsg *msg, int none) {
  const char **keys = NULL;
  int count = 0;
  if (natsMsgHeader_Keys(msg, &keys, &count) != NATS_OK || count == 0) {
    free((void *)keys);
    lua_pushvalue(L, none);
    return;
  }
  lua_createtable(L, 0, count);
  for (int i = 0; i < count; i++) {
    const char *value = NULL;
    if (natsMsgHeader_Get(msg, keys[i], &value) != NATS_OK) continue;
    push_lower(L, keys[i]);
    lua_pushstring(L, value != NULL ? value : "");
    lua_rawset(L, -3);
  }
  free((void *)keys);
}

/* The numbers of a subject for acknowledgements:
 * $JS.ACK.[domain.account.]stream.consumer.deliveries. stream sequence.consumer
 * sequence.nanoseconds.pending[.random]. */
typedef struct metadata {
  uint64_t deliveries, stream, consumer, time;
} metadata;

static bool parse_number(const char *text, uint64_t *value) {
  uint64_t sum = 0;
  if (*text < '0' || *text > '9') return false;
  for (; *text >= '0' && *text <= '9'; text++) {
    unsigned digit = (unsigned)(*text - '0');
    if (sum > (UINT64_MAX - digit) / 10) return false;
    sum = sum * 10 + digit;
  }
  *value = sum;
  return *text == '.' || *text == '\0';
}

static bool parse_ack(const char *reply, metadata *out) {
  const char *tokens[MAX_TOKENS];
  int count = 0;
  if (reply == NULL || strncmp(reply, ACK_PREFIX, sizeof ACK_PREFIX - 1) != 0) return false;
  for (const char *at = reply; at != NULL && count < MAX_TOKENS; count++) {
    tokens[count] = at;
    at = strchr(at, '.');
    if (at != NULL) at++;
  }
  /* The form with a domain has eleven tokens and may get more behind them. */
  int first = count == 9 ? 4 : 6;
  if (count != 9 && count < 11) return false;
  return parse_number(tokens[first], &out->deliveries) &&
         parse_number(tokens[first + 1], &out->stream) &&
         parse_number(tokens[first + 2], &out->consumer) &&
         parse_number(tokens[first + 3], &out->time);
}

void weir_nats_push_keys(lua_State *L) {
  static const char *const names[] = {
      [WEIR_NATS_PAYLOAD] = "payload",   [WEIR_NATS_DESTINATION] = "destination",
      [WEIR_NATS_HEADERS] = "headers",   [WEIR_NATS_ATTEMPTS] = "attempts",
      [WEIR_NATS_POSITION] = "position", [WEIR_NATS_CONSUMED] = "consumed",
      [WEIR_NATS_TIME] = "time",         [WEIR_NATS_TOKEN] = "token",
      [WEIR_NATS_REPLY_TO] = "reply_to",
  };
  for (int i = 0; i < WEIR_NATS_KEY_COUNT; i++)
    lua_pushstring(L, names[i]);
}

static void push_key(lua_State *L, weir_nats_key key) {
  lua_pushvalue(L, lua_upvalueindex(WEIR_NATS_KEYS + (int)key));
}

static void set_integer(lua_State *L, weir_nats_key key, uint64_t value) {
  push_key(L, key);
  lua_pushinteger(L, (lua_Integer)value);
  lua_rawset(L, -3);
}

static void set_string(lua_State *L, weir_nats_key key, const char *value) {
  push_key(L, key);
  lua_pushstring(L, value);
  lua_rawset(L, -3);
}

/* Sets what headers say of the message that is below them. */
static void set_from_headers(lua_State *L) {
  static const char *const fields[][2] = {{"partition-key", "key"}, {"reply-to", "reply_to"}};
  for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++) {
    if (lua_getfield(L, -1, fields[i][0]) != LUA_TNIL) {
      lua_setfield(L, -4, fields[i][1]);
    } else {
      lua_pop(L, 1);
    }
  }
}

bool weir_nats_push_message(lua_State *L, natsMsg *msg, bool jetstream, int headers) {
  const char *reply = natsMsg_GetReply(msg);
  metadata meta;
  bool stored = jetstream && parse_ack(reply, &meta);
  headers = lua_absindex(L, headers);
  lua_createtable(L, 0, jetstream ? 8 : 4);
  push_key(L, WEIR_NATS_PAYLOAD);
  lua_pushlstring(L, natsMsg_GetData(msg), (size_t)natsMsg_GetDataLength(msg));
  lua_rawset(L, -3);
  set_string(L, WEIR_NATS_DESTINATION, natsMsg_GetSubject(msg));
  push_key(L, WEIR_NATS_HEADERS);
  push_headers(L, msg, headers);
  if (!lua_rawequal(L, -1, headers)) set_from_headers(L);
  lua_rawset(L, -3);
  if (stored) {
    set_integer(L, WEIR_NATS_ATTEMPTS, meta.deliveries);
    set_integer(L, WEIR_NATS_POSITION, meta.stream);
    set_integer(L, WEIR_NATS_CONSUMED, meta.consumer);
    push_key(L, WEIR_NATS_TIME);
    lua_pushnumber(L, (lua_Number)meta.time / 1e9);
    lua_rawset(L, -3);
    set_string(L, WEIR_NATS_TOKEN, reply);
  } else if (reply != NULL && reply[0] != '\0') {
    set_string(L, WEIR_NATS_REPLY_TO, reply);
  }
  return stored || !jetstream;
}

bool weir_nats_subject_valid(const char *subject, size_t length, bool pattern) {
  bool start = true; /* of a token */
  for (size_t i = 0; i < length; i++) {
    unsigned char c = (unsigned char)subject[i];
    if (c <= ' ' || c == 0x7f) return false;
    if (c == '.') {
      if (start) return false;
      start = true;
      continue;
    }
    bool alone = start && (i + 1 == length || subject[i + 1] == '.');
    if (alone && c == '*' && !pattern) return false;
    if (alone && c == '>' && (!pattern || i + 1 != length)) return false;
    start = false;
  }
  return !start;
}

static bool has_line_end(const char *text, size_t length) {
  return memchr(text, '\r', length) != NULL || memchr(text, '\n', length) != NULL ||
         memchr(text, '\0', length) != NULL;
}

/* White space as libnats sees it, which takes it from both ends of a value. */
static bool is_space(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

/* Why libnats would not carry the header as it is; NULL: it would. It reads an empty value as the
 * next line, so that one is refused too. */
static const char *check_header(const char *name, size_t name_length, const char *value,
                                size_t length) {
  if (name_length == 0 || has_line_end(name, name_length) ||
      memchr(name, ':', name_length) != NULL || memchr(name, ' ', name_length) != NULL) {
    return "a name of a header has no spaces, colons and line ends";
  }
  if (has_line_end(value, length))
    return "the value of a header has no line ends and no zero bytes";
  if (length == 0 || is_space(value[0]) || is_space(value[length - 1])) {
    return "the value of a header is not empty and does not begin or end with white space";
  }
  return NULL;
}

/* Copies the headers of the table at `index`; nothing here raises. */
static const char *set_headers(lua_State *L, int index, natsMsg *msg, size_t *bytes) {
  lua_pushnil(L);
  while (lua_next(L, index) != 0) {
    const char *problem = "names and values of headers are strings";
    if (lua_type(L, -2) == LUA_TSTRING && lua_type(L, -1) == LUA_TSTRING) {
      size_t name_length, length;
      const char *name = lua_tolstring(L, -2, &name_length);
      const char *value = lua_tolstring(L, -1, &length);
      problem = check_header(name, name_length, value, length);
      if (problem == NULL && natsMsgHeader_Set(msg, name, value) != NATS_OK) {
        problem = "out of memory";
      }
      *bytes += name_length + length;
    }
    if (problem != NULL) {
      lua_pop(L, 2);
      return problem;
    }
    lua_pop(L, 1);
  }
  return NULL;
}

const char *weir_nats_make_message(lua_State *L, int index, natsMsg **msg, const char *subject,
                                   const char *reply, const char *payload, size_t length,
                                   size_t *bytes) {
  *msg = NULL;
  if (natsMsg_Create(msg, subject, reply, payload, (int)length) != NATS_OK) return "out of memory";
  const char *problem = lua_istable(L, index) ? set_headers(L, index, *msg, bytes) : NULL;
  if (problem != NULL) {
    natsMsg_Destroy(*msg);
    *msg = NULL;
  }
  return problem;
}
