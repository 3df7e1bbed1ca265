/***
 * LMDB: environments, batches of changes, snapshots. What the memory broker is durable with.
 *
 * An *environment* is a directory that this process alone uses, with numbered databases: 0 is the
 * main one, 1 and up those named when it was opened. Changes are gathered in a *batch* and
 * committed together: all of them or none. A *snapshot* reads what was committed when it was made.
 *
 * Keys are strings of 1 to 511 bytes, or integers from 0, which become 8 bytes, big-endian, and so
 * are in order; values are strings. What fails in a correct program returns nil, a code ("full",
 * "no_space", "locked", "damaged", "permission", "busy", "io", ...) and a sentence; misuse, and use
 * after close, raises.
 *
 *     local env = assert(lmdb.open("dir", { databases = { "items" }, max_size = 1 << 30 }))
 *     local batch = lmdb.batch()
 *     batch:put(1, "key", "value")
 *     assert(env:commit(batch))
 * @module weir.brokers.lmdb
 */
#include <stdint.h>
#include <string.h>

#include "brokers/lmdb/env.h"
#include "core/list.h"
#include "lua/compat.h"

#define ENV "weir.lmdb.env"
#define BATCH "weir.lmdb.batch"
#define SNAPSHOT "weir.lmdb.snapshot"
#define CURSOR "weir.lmdb.cursor"

#define DEFAULT_SIZE ((lua_Integer)1 << 20)
#define DEFAULT_MAX_SIZE ((lua_Integer)1 << 30)

typedef struct lua_batch {
  weir_lmdb_batch batch;
  bool borrowed;  /* a commit under way reads it */
  bool collected; /* by Lua, meanwhile */
} lua_batch;

typedef struct lua_env {
  weir_lmdb db;
  bool open;
  unsigned databases;
  weir_list snapshots;
  lua_batch *submitted; /* kept alive by the table of values */
} lua_env;

typedef struct lua_snapshot {
  weir_link link; /* of its environment; linked while it is open */
  lua_env *env;
  MDB_txn *txn; /* NULL: closed */
  weir_list cursors;
} lua_snapshot;

typedef struct lua_cursor {
  weir_link link;
  lua_snapshot *snapshot;
  MDB_cursor *cursor; /* NULL: closed */
  unsigned db;
  bool begun, bounded;
  MDB_val last; /* the last key, when bounded; in the table of values */
  unsigned char number[8];
} lua_cursor;

static int fail(lua_State *L, int error, const char *why) {
  lua_pushnil(L);
  lua_pushstring(L, weir_lmdb_code(error));
  if (why != NULL && why[0] != '\0') {
    lua_pushfstring(L, "%s: %s", weir_lmdb_text(error), why);
  } else {
    lua_pushstring(L, weir_lmdb_text(error));
  }
  return 3;
}

static int succeed(lua_State *L) {
  lua_pushboolean(L, 1);
  return 1;
}

/* --- arguments -------------------------------------------------------------------------------- */

static void store64(unsigned char *to, uint64_t value) {
  for (int i = 7; i >= 0; i--, value >>= 8)
    to[i] = (unsigned char)value;
}

/* The key at `index`, which lies in Lua's string or in `number`. */
static MDB_val check_key(lua_State *L, int index, unsigned char number[8]) {
  MDB_val key;
  if (lua_type(L, index) == LUA_TNUMBER) {
    lua_Integer value = luaL_checkinteger(L, index);
    luaL_argcheck(L, value >= 0, index, "a key that is a number starts at 0");
    store64(number, (uint64_t)value);
    key.mv_size = 8;
    key.mv_data = number;
    return key;
  }
  key.mv_data = (void *)luaL_checklstring(L, index, &key.mv_size);
  luaL_argcheck(L, key.mv_size > 0 && key.mv_size <= WEIR_LMDB_MAX_KEY, index,
                "a key has 1 to 511 bytes");
  return key;
}

static unsigned check_database(lua_State *L, int index, unsigned count) {
  lua_Integer number = luaL_checkinteger(L, index);
  luaL_argcheck(L, number >= 0 && number <= (lua_Integer)count, index, "there is no such database");
  return (unsigned)number;
}

static lua_env *check_env(lua_State *L) {
  lua_env *env = luaL_checkudata(L, 1, ENV);
  if (!env->open) luaL_error(L, "the environment is closed");
  return env;
}

/* The batch at `index`, which may be changed. */
static lua_batch *check_batch(lua_State *L, int index) {
  lua_batch *box = luaL_checkudata(L, index, BATCH);
  if (box->borrowed) luaL_error(L, "the batch is being committed");
  return box;
}

static lua_snapshot *check_snapshot(lua_State *L) {
  lua_snapshot *snapshot = luaL_checkudata(L, 1, SNAPSHOT);
  if (snapshot->txn == NULL) luaL_error(L, "the snapshot is closed");
  return snapshot;
}

static size_t check_position(lua_State *L, const weir_lmdb_batch *batch, int index,
                             lua_Integer position) {
  luaL_argcheck(L, weir_lmdb_batch_fits(batch, (size_t)position), index,
                "it is none of the positions that the batch had");
  return (size_t)position;
}

/* --- batches ---------------------------------------------------------------------------------- */

/***
 * Makes an empty batch.
 * @function batch
 */
static int new_batch(lua_State *L) {
  lua_batch *box = weir_lua_new_plain(L, sizeof *box);
  *box = (lua_batch){0};
  luaL_setmetatable(L, BATCH);
  return 1;
}

static int gc_batch(lua_State *L) {
  lua_batch *box = luaL_checkudata(L, 1, BATCH);
  box->collected = true;
  if (!box->borrowed) weir_lmdb_batch_free(&box->batch);
  return 0;
}

/* The bytes of all strings from `first` on. */
static size_t total_length(lua_State *L, int first, int top) {
  size_t total = 0, len;
  for (int i = first; i <= top; i++) {
    luaL_checklstring(L, i, &len);
    luaL_argcheck(L, len <= SIZE_MAX / 4 - total, i, "the value is too long");
    total += len;
  }
  return total;
}

static int add_put(lua_State *L, weir_lmdb_op op) {
  lua_batch *box = check_batch(L, 1);
  unsigned db = check_database(L, 2, WEIR_LMDB_MAX_DATABASES - 1);
  unsigned char number[8], *at;
  MDB_val key = check_key(L, 3, number);
  int top = lua_gettop(L);
  size_t vlen = total_length(L, 4, top), len;
  if (!weir_lmdb_batch_add(&box->batch, op, db, key.mv_size, vlen, &at)) {
    return luaL_error(L, "not enough memory");
  }
  memcpy(at, key.mv_data, key.mv_size);
  at += key.mv_size;
  for (int i = 4; i <= top; i++) {
    const char *part = lua_tolstring(L, i, &len);
    memcpy(at, part, len);
    at += len;
  }
  return 0;
}

/***
 * Sets the value of a key: all strings that follow it, one behind the other.
 * @function batch:put
 * @tparam integer database
 * @tparam string|integer key
 * @tparam string ...
 */
static int batch_put(lua_State *L) { return add_put(L, WEIR_LMDB_PUT); }

/***
 * The same for a key that is most likely greater than all others: then it is faster.
 * @function batch:append
 */
static int batch_append(lua_State *L) { return add_put(L, WEIR_LMDB_APPEND); }

/***
 * Removes a key, if it is there.
 * @function batch:del
 * @tparam integer database
 * @tparam string|integer key
 */
static int batch_del(lua_State *L) {
  lua_batch *box = check_batch(L, 1);
  unsigned db = check_database(L, 2, WEIR_LMDB_MAX_DATABASES - 1);
  unsigned char number[8], *at;
  MDB_val key = check_key(L, 3, number);
  if (!weir_lmdb_batch_add(&box->batch, WEIR_LMDB_DEL, db, key.mv_size, 0, &at)) {
    return luaL_error(L, "not enough memory");
  }
  memcpy(at, key.mv_data, key.mv_size);
  return 0;
}

/***
 * Adds all changes of another batch behind its own.
 * @function batch:join
 * @param other
 */
static int batch_join(lua_State *L) {
  lua_batch *box = check_batch(L, 1);
  const lua_batch *other = luaL_checkudata(L, 2, BATCH);
  luaL_argcheck(L, other != box, 2, "another batch is expected");
  if (!weir_lmdb_batch_join(&box->batch, &other->batch)) {
    return luaL_error(L, "not enough memory");
  }
  return 0;
}

/***
 * The position behind the last change, in bytes: parts of a batch lie between two of them.
 * @function batch:position
 * @treturn integer
 */
static int batch_position(lua_State *L) {
  const lua_batch *box = luaL_checkudata(L, 1, BATCH);
  lua_pushinteger(L, (lua_Integer)box->batch.len);
  return 1;
}

/***
 * Forgets all changes.
 * @function batch:clear
 */
static int batch_clear(lua_State *L) {
  weir_lmdb_batch_clear(&check_batch(L, 1)->batch);
  return 0;
}

/***
 * A position between two others, about in the middle.
 * @function batch:middle
 * @tparam integer from
 * @tparam integer to
 * @treturn integer `to` if there is one change between them at most
 */
static int batch_middle(lua_State *L) {
  const lua_batch *box = luaL_checkudata(L, 1, BATCH);
  lua_Integer from = luaL_checkinteger(L, 2), to = luaL_checkinteger(L, 3);
  luaL_argcheck(L, from >= 0 && from <= to && to <= (lua_Integer)box->batch.len, 2,
                "there is no such part of the batch");
  check_position(L, &box->batch, 2, from);
  check_position(L, &box->batch, 3, to);
  lua_pushinteger(L, (lua_Integer)weir_lmdb_batch_middle(&box->batch, (size_t)from, (size_t)to));
  return 1;
}

/***
 * Forgets the changes from a position on.
 * @function batch:cut
 * @tparam integer position
 */
static int batch_cut(lua_State *L) {
  lua_batch *box = check_batch(L, 1);
  lua_Integer position = luaL_checkinteger(L, 2);
  luaL_argcheck(L, position >= 0 && position <= (lua_Integer)box->batch.len, 2,
                "the batch is shorter");
  weir_lmdb_batch_cut(&box->batch, check_position(L, &box->batch, 2, position));
  return 0;
}

static int batch_len(lua_State *L) {
  const lua_batch *box = luaL_checkudata(L, 1, BATCH);
  lua_pushinteger(L, (lua_Integer)box->batch.count);
  return 1;
}

static int batch_tostring(lua_State *L) {
  const lua_batch *box = luaL_checkudata(L, 1, BATCH);
  lua_pushfstring(L, "weir.lmdb.batch: %d changes%s", (int)box->batch.count,
                  box->borrowed ? ", being committed" : "");
  return 1;
}

/* --- snapshots -------------------------------------------------------------------------------- */

static void close_cursor(lua_cursor *cursor) {
  if (cursor->cursor == NULL) return;
  mdb_cursor_close(cursor->cursor);
  cursor->cursor = NULL;
  weir_list_remove(&cursor->link);
}

static void close_snapshot(lua_snapshot *snapshot) {
  if (snapshot->txn == NULL) return;
  for (weir_link *link; (link = weir_list_first(&snapshot->cursors)) != NULL;) {
    close_cursor(weir_list_of(link, lua_cursor, link));
  }
  weir_lmdb_read_end(&snapshot->env->db, snapshot->txn);
  snapshot->txn = NULL;
  weir_list_remove(&snapshot->link);
}

/* Ties the value at `index` to the object on top of the stack. */
static void keep(lua_State *L, int index) {
  weir_lua_push_values(L, -1);
  lua_pushvalue(L, index);
  lua_rawseti(L, -2, 1);
  lua_pop(L, 1);
}

/***
 * What is committed now. Close it soon: it keeps what it shows from being overwritten, and the
 * environment from growing.
 * @function env:snapshot
 * @treturn[1] snapshot
 * @return[2] nil
 * @treturn[2] string code
 * @treturn[2] string message
 */
static int env_snapshot(lua_State *L) {
  lua_env *env = check_env(L);
  lua_snapshot *snapshot = weir_lua_new_object(L, sizeof *snapshot, SNAPSHOT);
  snapshot->env = env;
  snapshot->txn = NULL;
  weir_list_init(&snapshot->link);
  weir_list_init(&snapshot->cursors);
  keep(L, 1);
  MDB_txn *txn;
  int error = weir_lmdb_read(&env->db, &txn);
  if (error != 0) return fail(L, error, NULL);
  snapshot->txn = txn;
  weir_list_append(&env->snapshots, &snapshot->link);
  return 1;
}

/***
 * Ends it and the iterations over it. May be called twice.
 * @function snapshot:close
 */
static int snapshot_close(lua_State *L) {
  close_snapshot(luaL_checkudata(L, 1, SNAPSHOT));
  return 0;
}

/***
 * The value of a key.
 * @function snapshot:get
 * @tparam integer database
 * @tparam string|integer key
 * @return the string; nil if there is no such key; nil, a code and a message on an error
 */
static int snapshot_get(lua_State *L) {
  lua_snapshot *snapshot = check_snapshot(L);
  unsigned db = check_database(L, 2, snapshot->env->databases);
  unsigned char number[8];
  MDB_val key = check_key(L, 3, number), value;
  int error = mdb_get(snapshot->txn, snapshot->env->db.dbis[db], &key, &value);
  if (error == MDB_NOTFOUND) {
    lua_pushnil(L);
    return 1;
  }
  if (error != 0) return fail(L, error, NULL);
  lua_pushlstring(L, value.mv_data, value.mv_size);
  return 1;
}

/* Moves to the next pair within the range. */
static int advance(lua_cursor *cursor, MDB_val *key, MDB_val *value) {
  int error = 0;
  if (!cursor->begun) {
    cursor->begun = true;
    error =
        mdb_cursor_get(cursor->cursor, key, value, key->mv_size > 0 ? MDB_SET_RANGE : MDB_FIRST);
  } else {
    error = mdb_cursor_get(cursor->cursor, key, value, MDB_NEXT);
  }
  if (error != 0 || !cursor->bounded) return error;
  MDB_dbi dbi = cursor->snapshot->env->db.dbis[cursor->db];
  return mdb_cmp(cursor->snapshot->txn, dbi, key, &cursor->last) > 0 ? MDB_NOTFOUND : 0;
}

/* Upvalues: the cursor, the first key or nil. */
static int next_pair(lua_State *L) {
  lua_cursor *cursor = lua_touserdata(L, lua_upvalueindex(1));
  if (cursor->cursor == NULL) {
    if (cursor->snapshot->txn == NULL) return luaL_error(L, "the snapshot is closed");
    return 0; /* at its end */
  }
  MDB_val key = {0, NULL}, value;
  unsigned char number[8];
  if (!cursor->begun && !lua_isnil(L, lua_upvalueindex(2))) {
    key = check_key(L, lua_upvalueindex(2), number);
  }
  int error = advance(cursor, &key, &value);
  if (error == MDB_NOTFOUND) {
    close_cursor(cursor);
    return 0;
  }
  if (error != 0) {
    close_cursor(cursor);
    return luaL_error(L, "%s: %s", weir_lmdb_code(error), weir_lmdb_text(error));
  }
  lua_pushlstring(L, key.mv_data, key.mv_size);
  lua_pushlstring(L, value.mv_data, value.mv_size);
  return 2;
}

/***
 * An iterator over keys and values, in the order of the keys' bytes; for `for`. It raises when the
 * file cannot be read.
 * @function snapshot:range
 * @tparam integer database
 * @tparam[opt] string|integer first the least key; all when left out
 * @tparam[opt] string|integer last the greatest key
 */
static int snapshot_range(lua_State *L) {
  lua_snapshot *snapshot = check_snapshot(L);
  unsigned db = check_database(L, 2, snapshot->env->databases);
  unsigned char number[8];
  lua_settop(L, 4);
  if (!lua_isnil(L, 3)) check_key(L, 3, number);
  if (!lua_isnil(L, 4)) check_key(L, 4, number);
  lua_cursor *cursor = weir_lua_new_object(L, sizeof *cursor, CURSOR);
  *cursor = (lua_cursor){.snapshot = snapshot, .db = db, .bounded = !lua_isnil(L, 4)};
  weir_list_init(&cursor->link);
  keep(L, 1);
  if (cursor->bounded) {
    cursor->last = check_key(L, 4, cursor->number);
    weir_lua_push_values(L, -1);
    lua_pushvalue(L, 4);
    lua_rawseti(L, -2, 2);
    lua_pop(L, 1);
  }
  MDB_cursor *made;
  int error = mdb_cursor_open(snapshot->txn, snapshot->env->db.dbis[db], &made);
  if (error != 0) return luaL_error(L, "%s: %s", weir_lmdb_code(error), weir_lmdb_text(error));
  cursor->cursor = made;
  weir_list_append(&snapshot->cursors, &cursor->link);
  lua_pushvalue(L, 3);
  lua_pushcclosure(L, next_pair, 2);
  return 1;
}

static int gc_cursor(lua_State *L) {
  close_cursor(luaL_checkudata(L, 1, CURSOR));
  return 0;
}

static int snapshot_tostring(lua_State *L) {
  const lua_snapshot *snapshot = luaL_checkudata(L, 1, SNAPSHOT);
  lua_pushfstring(L, "weir.lmdb.snapshot: %s", snapshot->txn != NULL ? "open" : "closed");
  return 1;
}

/* --- environments ----------------------------------------------------------------------------- */

/* The submitted batch may be changed again. */
static void return_batch(lua_env *env) {
  lua_batch *box = env->submitted;
  env->submitted = NULL;
  if (box == NULL) return;
  box->borrowed = false;
  if (box->collected) weir_lmdb_batch_free(&box->batch);
}

static void close_env(lua_env *env) {
  if (!env->open) return;
  for (weir_link *link; (link = weir_list_first(&env->snapshots)) != NULL;) {
    close_snapshot(weir_list_of(link, lua_snapshot, link));
  }
  env->open = false;
  weir_lmdb_close(&env->db);
  return_batch(env);
}

static lua_Integer size_field(lua_State *L, const char *name, lua_Integer otherwise) {
  lua_getfield(L, 2, name);
  lua_Integer value = lua_isnil(L, -1) ? otherwise : luaL_checkinteger(L, -1);
  if (value < 1) luaL_error(L, "lmdb.open: '%s' is a number of bytes", name);
  lua_pop(L, 1);
  return value;
}

/* The strings stay on the stack, and so alive. */
static unsigned database_names(lua_State *L, const char *names[]) {
  lua_getfield(L, 2, "databases");
  if (lua_isnil(L, -1)) return 0;
  luaL_checktype(L, -1, LUA_TTABLE);
  int list = lua_gettop(L);
  size_t count = lua_rawlen(L, list);
  if (count >= WEIR_LMDB_MAX_DATABASES) luaL_error(L, "lmdb.open: too many databases");
  luaL_checkstack(L, (int)count, NULL);
  for (size_t i = 0; i < count; i++) {
    lua_rawgeti(L, list, (lua_Integer)i + 1);
    names[i] = luaL_checkstring(L, -1);
  }
  return (unsigned)count;
}

/***
 * Opens, or makes, an environment.
 * @function open
 * @tparam string dir made when it is not there; its parent must be
 * @tparam[opt] table options `databases`: names, for the numbers from 1; `size`: of the file at
 * first, in bytes (1 MiB); `max_size`: up to which it grows by itself (1 GiB); `sync`: whether a
 * commit waits for the disk (true), or survives the death of the process only (false)
 * @treturn[1] env
 * @return[2] nil
 * @treturn[2] string code "locked", "damaged", "permission", ...
 * @treturn[2] string message
 */
static int open_env(lua_State *L) {
  const char *names[WEIR_LMDB_MAX_DATABASES];
  char why[128];
  weir_lmdb_options options = {.dir = luaL_checkstring(L, 1), .databases = names, .sync = true};
  lua_settop(L, 2);
  if (lua_isnil(L, 2)) {
    lua_newtable(L);
    lua_replace(L, 2);
  }
  luaL_checktype(L, 2, LUA_TTABLE);
  options.size = (size_t)size_field(L, "size", DEFAULT_SIZE);
  options.max_size = (size_t)size_field(L, "max_size", DEFAULT_MAX_SIZE);
  if (options.size > options.max_size) options.size = options.max_size;
  lua_getfield(L, 2, "sync");
  if (!lua_isnil(L, -1)) options.sync = lua_toboolean(L, -1);
  options.database_count = database_names(L, names);
  lua_env *env = weir_lua_new_object(L, sizeof *env, ENV);
  env->open = false;
  env->databases = options.database_count;
  env->submitted = NULL;
  weir_list_init(&env->snapshots);
  int error = weir_lmdb_open(&env->db, &options, why, sizeof why);
  if (error != 0) return fail(L, error, why);
  env->open = true;
  return 1;
}

/***
 * Closes it and its snapshots, after the commit under way. May be called twice.
 * @function env:close
 */
static int env_close(lua_State *L) {
  close_env(luaL_checkudata(L, 1, ENV));
  return 0;
}

typedef struct {
  lua_batch *box;
  size_t from, to;
  bool reserve;
} part;

static part check_part(lua_State *L, const lua_env *env) {
  part p = {.box = check_batch(L, 2)};
  lua_Integer len = (lua_Integer)p.box->batch.len;
  lua_Integer from = luaL_optinteger(L, 3, 0), to = luaL_optinteger(L, 4, len);
  luaL_argcheck(L, from >= 0 && from <= to && to <= len, 3, "there is no such part of the batch");
  p.from = check_position(L, &p.box->batch, 3, from);
  p.to = check_position(L, &p.box->batch, 4, to);
  p.reserve = lua_toboolean(L, 5);
  if (p.box->batch.highest > env->databases) {
    luaL_argerror(L, 2, "it names a database that is not open");
  }
  return p;
}

/***
 * Commits a batch, or a part of it: all of it or, on an error, nothing. The batch stays as it is.
 * @function env:commit
 * @param batch
 * @tparam[opt] integer from a position, the beginning when left out
 * @tparam[opt] integer to a position, the end when left out
 * @tparam[opt] boolean reserve whether it may use the space above `max_size` that is kept for
 * deletions
 * @treturn[1] boolean true
 * @return[2] nil
 * @treturn[2] string code "full", "no_space", "busy" (a snapshot or a commit is in the way), "io"
 * @treturn[2] string message
 */
static int env_commit(lua_State *L) {
  lua_env *env = check_env(L);
  part p = check_part(L, env);
  int error = weir_lmdb_commit(&env->db, &p.box->batch, p.from, p.to, p.reserve);
  return error == 0 ? succeed(L) : fail(L, error, NULL);
}

/***
 * Starts to do the same in a thread of its own. The batch must not be touched until `env:result()`
 * has an answer; `env:fd()` is readable then. One at a time.
 * @function env:submit
 */
static int env_submit(lua_State *L) {
  lua_env *env = check_env(L);
  part p = check_part(L, env);
  int error = weir_lmdb_submit(&env->db, &p.box->batch, p.from, p.to, p.reserve);
  if (error != 0) return fail(L, error, NULL);
  p.box->borrowed = true;
  env->submitted = p.box;
  lua_settop(L, 2);
  lua_pushvalue(L, 1);
  keep(L, 2);
  return succeed(L);
}

/***
 * How the submitted commit ended.
 * @function env:result
 * @return nil alone: it has not; else as `env:commit`
 */
static int env_result(lua_State *L) {
  lua_env *env = check_env(L);
  int error;
  if (!weir_lmdb_finish(&env->db, &error)) {
    lua_pushnil(L);
    return 1;
  }
  return_batch(env);
  return error == 0 ? succeed(L) : fail(L, error, NULL);
}

/***
 * The descriptor that is readable when `env:result()` has an answer. Starts the thread.
 * @function env:fd
 * @treturn[1] integer
 * @return[2] nil
 * @treturn[2] string code
 * @treturn[2] string message
 */
static int env_fd(lua_State *L) {
  int fd;
  int error = weir_lmdb_fd(&check_env(L)->db, &fd);
  if (error != 0) return fail(L, error, NULL);
  lua_pushinteger(L, fd);
  return 1;
}

/***
 * Bytes of the file that are in use or were, and up to which that may grow. The file is longer:
 * room is set aside for what comes next.
 * @function env:size
 * @treturn integer
 * @treturn integer
 */
static int env_size(lua_State *L) {
  lua_env *env = check_env(L);
  lua_pushinteger(L, (lua_Integer)weir_lmdb_used(&env->db));
  lua_pushinteger(L, (lua_Integer)env->db.max_size);
  return 2;
}

static int env_tostring(lua_State *L) {
  const lua_env *env = luaL_checkudata(L, 1, ENV);
  lua_pushfstring(L, "weir.lmdb.env: %s", env->open ? "open" : "closed");
  return 1;
}

/* --- the module ------------------------------------------------------------------------------- */

static const luaL_Reg batch_methods[] = {
    {"put", batch_put},   {"append", batch_append},     {"del", batch_del},
    {"join", batch_join}, {"position", batch_position}, {"clear", batch_clear},
    {"cut", batch_cut},   {"middle", batch_middle},     {NULL, NULL},
};
static const luaL_Reg batch_meta[] = {
    {"__gc", gc_batch}, {"__len", batch_len}, {"__tostring", batch_tostring}, {NULL, NULL}};

static const luaL_Reg snapshot_methods[] = {
    {"get", snapshot_get}, {"range", snapshot_range}, {"close", snapshot_close}, {NULL, NULL}};
static const luaL_Reg snapshot_meta[] = {{"__gc", snapshot_close},
                                         {"__close", snapshot_close},
                                         {"__tostring", snapshot_tostring},
                                         {NULL, NULL}};

static const luaL_Reg env_methods[] = {
    {"commit", env_commit}, {"submit", env_submit},     {"result", env_result}, {"fd", env_fd},
    {"size", env_size},     {"snapshot", env_snapshot}, {"close", env_close},   {NULL, NULL},
};
static const luaL_Reg env_meta[] = {
    {"__gc", env_close}, {"__close", env_close}, {"__tostring", env_tostring}, {NULL, NULL}};

static const luaL_Reg no_methods[] = {{NULL, NULL}};
static const luaL_Reg cursor_meta[] = {{"__gc", gc_cursor}, {NULL, NULL}};

int luaopen_weir_brokers_lmdb(lua_State *L);

int luaopen_weir_brokers_lmdb(lua_State *L) {
  static const luaL_Reg functions[] = {{"open", open_env}, {"batch", new_batch}, {NULL, NULL}};
  weir_lua_new_class(L, ENV, env_methods, env_meta);
  weir_lua_new_class(L, BATCH, batch_methods, batch_meta);
  weir_lua_new_class(L, SNAPSHOT, snapshot_methods, snapshot_meta);
  weir_lua_new_class(L, CURSOR, no_methods, cursor_meta);
  lua_newtable(L);
  luaL_setfuncs(L, functions, 0);
  return 1;
}
