/*
 * core.durable_writer{epoch=, sequence=, json=bool, auto_claim=bool, max_batch_bytes=,
 *                     max_batch_items=, max_in_flight=, linger=s, buffer=bytes, retry={...}}
 *
 *   :append(bytes, now) -> number of the item, deadline()
 *                        | nil, word           "again" (full), "closed", "nomem",
 *                                              "invalid" (an empty item)
 *   :flush()                                   what is queued goes out without lingering
 *   :close(bytes | nil, now) -> true | nil, word
 *   :next(now) -> {id=, epoch=, sequence=, close=bool, first_item=, item_count=, body=string | nil}
 *                 | nil, "again" | nil, "closed"
 *   :deadline() -> seconds | nil               when next() is worth calling again
 *   :done(id, transport, {status=, headers={{name, value}, ...}, unix=} | nil, now, random)
 *                                              as for core.durable_verdict()
 *   :restart() -> true | nil, word
 *   :state() -> {epoch=, next_sequence=, confirmed_sequence=, items=, confirmed=, unsent=,
 *                queued_bytes=, in_flight=, batches=, retries=, duplicates=, claims=, closing=,
 *                closed=, failed=, offset=} and, if it has failed, {code=, status=, first_item=,
 *                item_count=, refused_count=, refused_sequence=, response={...}}
 *   :free()
 *
 * See core/durable/writer.h; times are seconds of the caller's clock. Options out of range raise an
 * error that names them.
 */
#include "core/durable/writer.h"

#include "lua/core.h"
#include "lua/core_args.h"
#include "lua/durable.h"
#include "lua/stream.h"

#define NAME "weir.core.durable_writer"
#define NUMBER_MAX 9007199254740991.0

typedef struct lua_writer {
  weir_durable_writer *writer; /* NULL after free() */
} lua_writer;

static weir_durable_writer *self_of(lua_State *L) {
  lua_writer *self = weir_lua_self(L, NAME);
  if (self->writer == NULL) luaL_error(L, "the writer is gone");
  return self->writer;
}

/* A whole number from `least` to `most`; 0, the core's word for its default, where there is none.
 */
static uint64_t option(lua_State *L, const char *name, lua_Number least, lua_Number most) {
  lua_getfield(L, 1, name);
  const bool given = !lua_isnil(L, -1);
  if (given && lua_type(L, -1) != LUA_TNUMBER) {
    luaL_error(L, "durable_writer: '%s' must be a number", name);
  }
  const lua_Number value = given ? lua_tonumber(L, -1) : 0;
  lua_pop(L, 1);
  if (given && !(value >= least && value <= most && value == (lua_Number)(uint64_t)value)) {
    luaL_error(L, "durable_writer: '%s' is out of range", name);
  }
  return (uint64_t)value;
}

static bool flag(lua_State *L, const char *name) {
  lua_getfield(L, 1, name);
  const bool value = lua_toboolean(L, -1);
  lua_pop(L, 1);
  return value;
}

static int new_writer(lua_State *L) {
  static const char *const KNOWN[] = {"epoch",
                                      "sequence",
                                      "json",
                                      "auto_claim",
                                      "max_batch_bytes",
                                      "max_batch_items",
                                      "max_in_flight",
                                      "linger",
                                      "buffer",
                                      "retry",
                                      NULL};
  lua_settop(L, 1);
  luaL_checktype(L, 1, LUA_TTABLE);
  weir_lua_check_options(L, 1, "durable_writer", KNOWN);
  weir_durable_writer_config config = {
      .epoch = option(L, "epoch", 0, NUMBER_MAX),
      .sequence = option(L, "sequence", 0, NUMBER_MAX),
      .json = flag(L, "json"),
      .auto_claim = flag(L, "auto_claim"),
      .max_batch_bytes = (size_t)option(L, "max_batch_bytes", 1, 0x1p40),
      .max_batch_items = (uint32_t)option(L, "max_batch_items", 1, UINT32_MAX),
      .max_in_flight = (uint32_t)option(L, "max_in_flight", 1, UINT32_MAX),
      .buffer = (size_t)option(L, "buffer", 1, 0x1p50),
      .linger = weir_lua_option_time(L, 1, "linger", 5 * WEIR_MILLISECOND),
  };
  if (config.linger == 0) config.linger = 1; /* 0 is the core's word for its default */
  lua_getfield(L, 1, "retry");
  weir_lua_durable_policy(L, 2, &config.retry);
  lua_writer *self = weir_lua_new_plain(L, sizeof *self);
  self->writer = NULL;
  luaL_getmetatable(L, NAME);
  lua_setmetatable(L, -2);
  self->writer = weir_durable_writer_new(NULL, &config);
  if (self->writer == NULL) return luaL_error(L, "not enough memory");
  return 1;
}

static int writer_free(lua_State *L) {
  lua_writer *self = weir_lua_self(L, NAME);
  weir_durable_writer_free(self->writer);
  self->writer = NULL;
  return 0;
}

static int writer_deadline(lua_State *L) {
  const uint64_t deadline = weir_durable_writer_deadline(self_of(L));
  if (deadline == WEIR_NEVER) return 0;
  weir_lua_push_time(L, deadline);
  return 1;
}

static int writer_append(lua_State *L) {
  weir_durable_writer *writer = self_of(L);
  size_t len;
  uint64_t item;
  const char *bytes = luaL_checklstring(L, 2, &len);
  const weir_status status =
      weir_durable_writer_append(writer, bytes, len, weir_lua_check_time(L, 3), &item);
  if (status != WEIR_OK) return weir_lua_status(L, status);
  weir_lua_push_count(L, item);
  return 1 + writer_deadline(L);
}

static int writer_flush(lua_State *L) {
  weir_durable_writer_flush(self_of(L));
  return 0;
}

static int writer_close(lua_State *L) {
  weir_durable_writer *writer = self_of(L);
  size_t len = 0;
  const char *bytes = luaL_optlstring(L, 2, NULL, &len);
  return weir_lua_result(L, weir_durable_writer_close(writer, bytes, bytes != NULL ? len : 0,
                                                      weir_lua_check_time(L, 3)));
}

static void set_body(lua_State *L, const weir_durable_request *request) {
  if (request->body_runs == 0) return;
  if (request->body_runs == 1) {
    weir_lua_set_bytes(L, "body", request->body[0].base, request->body[0].len);
    return;
  }
  luaL_Buffer body;
  luaL_buffinit(L, &body);
  for (size_t i = 0; i < request->body_runs; i++)
    luaL_addlstring(&body, request->body[i].base, request->body[i].len);
  luaL_pushresult(&body);
  lua_setfield(L, -2, "body");
}

static int writer_next(lua_State *L) {
  weir_durable_writer *writer = self_of(L);
  weir_durable_request request;
  const weir_status status = weir_durable_writer_next(writer, weir_lua_check_time(L, 2), &request);
  if (status != WEIR_OK) return weir_lua_status(L, status);
  lua_createtable(L, 0, 7);
  weir_lua_set_count(L, "id", request.id);
  weir_lua_set_count(L, "epoch", request.epoch);
  weir_lua_set_count(L, "sequence", request.sequence);
  weir_lua_set_count(L, "first_item", request.first_item);
  weir_lua_set_count(L, "item_count", request.item_count);
  weir_lua_durable_set_flag(L, "close", request.close);
  set_body(L, &request);
  return 1;
}

/* The response in the table at index 4. */
static void get_response(lua_State *L, weir_durable_response *response) {
  luaL_checktype(L, 4, LUA_TTABLE);
  lua_getfield(L, 4, "status");
  lua_getfield(L, 4, "headers");
  lua_getfield(L, 4, "unix");
  const int top = lua_gettop(L);
  const lua_Number status = lua_tonumber(L, top - 2);
  if (!(status >= 100 && status <= 999)) {
    luaL_error(L, "field 'status' must be a status of HTTP");
  }
  weir_lua_durable_response(L, (int)status, top - 1, top, response);
  lua_settop(L, top - 3);
}

static int writer_done(lua_State *L) {
  weir_durable_writer *writer = self_of(L);
  const uint64_t id = weir_lua_check_count(L, 2);
  const weir_durable_transport transport = weir_lua_durable_transport(L, 3);
  const uint64_t now = weir_lua_check_time(L, 5);
  const uint64_t random = weir_lua_durable_random(L, 6);
  weir_durable_response response;
  if (transport == WEIR_DURABLE_ANSWERED) get_response(L, &response);
  weir_durable_writer_done(writer, id, transport,
                           transport == WEIR_DURABLE_ANSWERED ? &response : NULL, now, random);
  return 0;
}

static int writer_restart(lua_State *L) {
  return weir_lua_result(L, weir_durable_writer_restart(self_of(L)));
}

static void set_failure(lua_State *L, const weir_durable_writer_state *state) {
  lua_pushstring(L, state->code);
  lua_setfield(L, -2, "code");
  if (state->status != 0) weir_lua_set_count(L, "status", (uint64_t)state->status);
  weir_lua_set_count(L, "first_item", state->first_item);
  weir_lua_set_count(L, "item_count", state->item_count);
  weir_lua_set_count(L, "refused_count", state->refused_count);
  weir_lua_set_count(L, "refused_sequence", state->refused_sequence);
  weir_lua_durable_push_response(L, &state->response);
  lua_setfield(L, -2, "response");
}

static int writer_state(lua_State *L) {
  const weir_durable_writer_state *state = weir_durable_writer_state_of(self_of(L));
  lua_createtable(L, 0, 24);
  weir_lua_set_count(L, "epoch", state->epoch);
  weir_lua_set_count(L, "next_sequence", state->next_sequence);
  weir_lua_set_count(L, "confirmed_sequence", state->confirmed_sequence);
  weir_lua_set_count(L, "items", state->items);
  weir_lua_set_count(L, "confirmed", state->confirmed);
  weir_lua_set_count(L, "unsent", state->unsent);
  weir_lua_set_count(L, "queued_bytes", state->queued_bytes);
  weir_lua_set_count(L, "in_flight", state->in_flight);
  weir_lua_set_count(L, "batches", state->batches);
  weir_lua_set_count(L, "retries", state->retries);
  weir_lua_set_count(L, "duplicates", state->duplicates);
  weir_lua_set_count(L, "claims", state->claims);
  weir_lua_durable_set_flag(L, "closing", state->closing);
  weir_lua_durable_set_flag(L, "closed", state->closed);
  weir_lua_durable_set_flag(L, "failed", state->failed);
  weir_lua_durable_set_text(L, "offset", &state->offset);
  if (state->failed) set_failure(L, state);
  return 1;
}

void weir_lua_open_durable_writer(lua_State *L) {
  static const luaL_Reg METHODS[] = {{"append", writer_append},     {"flush", writer_flush},
                                     {"close", writer_close},       {"next", writer_next},
                                     {"deadline", writer_deadline}, {"done", writer_done},
                                     {"restart", writer_restart},   {"state", writer_state},
                                     {"free", writer_free},         {NULL, NULL}};
  weir_lua_new_type(L, NAME, METHODS, writer_free);
  lua_pushcfunction(L, new_writer);
  lua_setfield(L, -2, "durable_writer");
}
