/*
 * Publishing from Lua, one message or many in a call.
 *
 *   link:publish(subject, payload, [reply, [headers]]) -> true | nil, code, text
 *   link:publish_many(items, first, last, [prefix, number]) -> how many
 *       publishes items[first] to items[last], lists whose first two values are subject and
 * payload, and stops before the first that has anything else, or that cannot be published:
 *       link:publish() says why. With a prefix, answers are to come to that and `number`, then the
 *       next number, ...; and it stops before another subject than the first.
 */
#include <stdio.h>
#include <string.h>

#include "brokers/nats/message.h"
#include "brokers/nats/nats.h"

typedef struct outgoing {
  const char *subject, *payload, *reply;
  size_t subject_length, length;
} outgoing;

/* Whether more bytes than allowed wait to be written. */
static bool is_full(nats_link *box, natsConnection *nc) {
  if (box->unchecked < box->limit / 4) return false;
  int buffered = natsConnection_Buffered(nc);
  if (buffered > 0 && (size_t)buffered >= box->limit) {
    box->filled = true;
    return true;
  }
  box->unchecked = 0;
  return false;
}

/* Whether it may be published to; most are the one before. */
static bool check_subject(nats_link *box, const char *subject, size_t length) {
  if (length == box->subject_length && length > 0 && memcmp(subject, box->subject, length) == 0) {
    return true;
  }
  if (!weir_nats_subject_valid(subject, length, false)) return false;
  if (length <= sizeof box->subject) {
    memcpy(box->subject, subject, length);
    box->subject_length = length;
  }
  return true;
}

/* NATS_OK when the message may go. */
static natsStatus admit(nats_link *box, natsConnection *nc, const outgoing *out) {
  if (nc == NULL) return NATS_CONNECTION_CLOSED;
  if (!check_subject(box, out->subject, out->subject_length)) return NATS_INVALID_SUBJECT;
  if (out->length > INT32_MAX) return NATS_MAX_PAYLOAD;
  return is_full(box, nc) ? NATS_INSUFFICIENT_BUFFER : NATS_OK;
}

static natsStatus send_plain(nats_link *box, natsConnection *nc, const outgoing *out) {
  natsStatus status =
      out->reply != NULL ? natsConnection_PublishRequest(nc, out->subject, out->reply, out->payload,
                                                         (int)out->length)
                         : natsConnection_Publish(nc, out->subject, out->payload, (int)out->length);
  if (status == NATS_OK) box->unchecked += out->length + out->subject_length;
  return status;
}

int weir_nats_publish(lua_State *L) {
  nats_link *box = weir_nats_check_link(L);
  outgoing out = {0};
  size_t reply_length, header_bytes = 0;
  out.subject = luaL_checklstring(L, 2, &out.subject_length);
  out.payload = luaL_checklstring(L, 3, &out.length);
  out.reply = luaL_optlstring(L, 4, NULL, &reply_length);
  natsConnection *nc = weir_nats_connection(box);
  natsStatus status = admit(box, nc, &out);
  if (status != NATS_OK) return weir_nats_fail(L, status);
  /* It is a part of the protocol's line: with a line end in it, it would be another command. */
  if (out.reply != NULL && !weir_nats_subject_valid(out.reply, reply_length, false)) {
    return weir_nats_fail(L, NATS_INVALID_SUBJECT);
  }
  if (lua_istable(L, 5)) {
    natsMsg *msg;
    const char *problem = weir_nats_make_message(L, 5, &msg, out.subject, out.reply, out.payload,
                                                 out.length, &header_bytes);
    if (problem != NULL) {
      lua_pushnil(L);
      lua_pushstring(L, "unsupported");
      lua_pushstring(L, problem);
      return 3;
    }
    status = natsConnection_PublishMsg(nc, msg);
    natsMsg_Destroy(msg);
    if (status == NATS_OK) box->unchecked += out.length + out.subject_length + header_bytes;
  } else {
    status = send_plain(box, nc, &out);
  }
  if (status != NATS_OK) return weir_nats_fail(L, status);
  lua_pushboolean(L, 1);
  return 1;
}

/* Reads an item of a list; leaves three values on the stack, which keep its strings alive. False:
 * it has headers or options, or is none. */
static bool read_item(lua_State *L, int items, lua_Integer index, outgoing *out) {
  if (lua_rawgeti(L, items, index) != LUA_TTABLE) return false;
  for (int field = 3; field <= 4; field++) {
    if (lua_rawgeti(L, -1, field) != LUA_TNIL) return false;
    lua_pop(L, 1);
  }
  if (lua_rawgeti(L, -1, 1) != LUA_TSTRING || lua_rawgeti(L, -2, 2) != LUA_TSTRING) return false;
  out->subject = lua_tolstring(L, -2, &out->subject_length);
  out->payload = lua_tolstring(L, -1, &out->length);
  return true;
}

/* Whether both go to one subject. */
static bool is_same(const outgoing *out, const outgoing *first) {
  return out->subject == first->subject ||
         (out->subject_length == first->subject_length &&
          memcmp(out->subject, first->subject, out->subject_length) == 0);
}

int weir_nats_publish_many(lua_State *L) {
  nats_link *box = weir_nats_check_link(L);
  char reply[WEIR_NATS_PREFIX + 24];
  size_t prefix_length = 0;
  luaL_checktype(L, 2, LUA_TTABLE);
  lua_Integer first = luaL_checkinteger(L, 3), last = luaL_checkinteger(L, 4);
  const char *prefix = luaL_optlstring(L, 5, NULL, &prefix_length);
  lua_Integer number = luaL_optinteger(L, 6, 0);
  luaL_argcheck(L, prefix_length < WEIR_NATS_PREFIX, 5, "too long");
  if (prefix != NULL) memcpy(reply, prefix, prefix_length);
  natsConnection *nc = weir_nats_connection(box);
  lua_Integer index = first;
  outgoing before = {0};
  for (; index <= last; index++) {
    outgoing out = {0};
    lua_settop(L, 6);
    if (!read_item(L, 2, index, &out)) break;
    if (prefix != NULL) {
      if (index > first && !is_same(&out, &before)) break;
      snprintf(reply + prefix_length, 24, LUA_INTEGER_FMT, number + (index - first));
      out.reply = reply;
    }
    if (admit(box, nc, &out) != NATS_OK || send_plain(box, nc, &out) != NATS_OK) break;
    before = out; /* the list keeps its strings alive */
  }
  lua_pushinteger(L, index - first);
  return 1;
}
