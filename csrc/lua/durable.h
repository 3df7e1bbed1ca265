/*
 * Arguments of the bindings of csrc/core/durable: retry policies, ends of requests, responses.
 * Misuse raises a Lua error.
 */
#ifndef WEIR_LUA_DURABLE_H
#define WEIR_LUA_DURABLE_H

#include <stdbool.h>

#include "core/durable/response.h"
#include "core/durable/retry.h"
#include "lua/compat.h"

/* The options of retries in the table at `index` (nil: the defaults): {max_retries=, initial=s,
 * max=s, multiplier=, floor_max=s}. The error for a value out of range names it. */
void weir_lua_durable_policy(lua_State *L, int index, weir_retry_policy *policy);

/* "answered", "not_sent", "lost" or "timed_out". */
weir_durable_transport weir_lua_durable_transport(lua_State *L, int index);

/* A number from 0 to below 1, as 64 bits. */
uint64_t weir_lua_durable_random(lua_State *L, int index);

/* Headers at `headers` are a list of {name, value}, or nil; `unix_now`, if a number, is the wall
 * clock in seconds since 1970, with which a Retry-After that is a date is understood. */
void weir_lua_durable_response(lua_State *L, int status, int headers, int unix_now,
                               weir_durable_response *response);

/* Pushes a table of what the response has: status, next_offset, cursor, etag, content_type,
 * up_to_date, closed, base64, unusable, producer_epoch, producer_seq, expected_seq, received_seq,
 * retry_after (seconds). What is absent is nil. */
void weir_lua_durable_push_response(lua_State *L, const weir_durable_response *response);

/* Sets field `key` of the table on top unless the text is empty. */
void weir_lua_durable_set_text(lua_State *L, const char *key, const weir_durable_text *text);

/* Sets field `key` of the table on top. */
void weir_lua_durable_set_flag(lua_State *L, const char *key, bool value);

#endif
