/* Options of a connection: a table of plain values, which lua/weir/broker/nats has checked. */
#include <string.h>

#include "brokers/nats/nats.h"

/* The index of the table, and what went wrong so far. */
typedef struct reader {
  lua_State *L;
  int index;
  natsOptions *opts;
  natsStatus status;
} reader;

/* Leaves the value on the stack: it keeps the string alive until the options are made. */
static const char *text(reader *in, const char *name) {
  lua_getfield(in->L, in->index, name);
  return lua_tostring(in->L, -1);
}

static bool number(reader *in, const char *name, int64_t *value) {
  lua_getfield(in->L, in->index, name);
  bool is = lua_isnumber(in->L, -1) != 0;
  if (is) *value = (int64_t)lua_tonumber(in->L, -1);
  lua_pop(in->L, 1);
  return is;
}

static bool flag(reader *in, const char *name) {
  lua_getfield(in->L, in->index, name);
  bool is = lua_toboolean(in->L, -1) != 0;
  lua_pop(in->L, 1);
  return is;
}

static void keep(reader *in, natsStatus status) {
  if (in->status == NATS_OK) in->status = status;
}

static bool is_pem(const char *value) { return strstr(value, "-----BEGIN") != NULL; }

static void set_servers(reader *in) {
  const char *servers[64];
  int count = 0;
  lua_getfield(in->L, in->index, "servers");
  int list = lua_gettop(in->L);
  luaL_checkstack(in->L, 80, NULL);
  for (; count < 64 && lua_rawgeti(in->L, list, count + 1) == LUA_TSTRING; count++) {
    servers[count] = lua_tostring(in->L, -1);
  }
  keep(in, natsOptions_SetServers(in->opts, servers, count));
}

static void set_credentials(reader *in) {
  const char *user = text(in, "user");
  const char *password = text(in, "password");
  const char *token = text(in, "token");
  const char *credentials = text(in, "creds");
  const char *seed = text(in, "seed");
  const char *nkey = text(in, "nkey");
  if (user != NULL) keep(in, natsOptions_SetUserInfo(in->opts, user, password));
  if (token != NULL) keep(in, natsOptions_SetToken(in->opts, token));
  if (credentials != NULL) {
    keep(in, natsOptions_SetUserCredentialsFromFiles(in->opts, credentials, seed));
  } else if (nkey != NULL) {
    keep(in, natsOptions_SetNKeyFromSeed(in->opts, nkey, seed));
  }
}

static void set_tls(reader *in) {
  if (!flag(in, "tls")) return;
  const char *ca = text(in, "ca");
  const char *cert = text(in, "cert");
  const char *key = text(in, "key");
  const char *hostname = text(in, "hostname");
  keep(in, natsOptions_SetSecure(in->opts, true));
  if (ca != NULL) {
    keep(in, is_pem(ca) ? natsOptions_SetCATrustedCertificates(in->opts, ca)
                        : natsOptions_LoadCATrustedCertificates(in->opts, ca));
  }
  if (cert != NULL && key != NULL) {
    keep(in, is_pem(cert) ? natsOptions_SetCertificatesChain(in->opts, cert, key)
                          : natsOptions_LoadCertificatesChain(in->opts, cert, key));
  }
  if (hostname != NULL) keep(in, natsOptions_SetExpectedHostname(in->opts, hostname));
  if (flag(in, "insecure")) keep(in, natsOptions_SkipServerVerification(in->opts, true));
}

static void set_connection(reader *in) {
  int64_t value;
  const char *name = text(in, "name");
  if (name != NULL) keep(in, natsOptions_SetName(in->opts, name));
  if (number(in, "connect_timeout", &value)) keep(in, natsOptions_SetTimeout(in->opts, value));
  if (number(in, "ping_interval", &value)) keep(in, natsOptions_SetPingInterval(in->opts, value));
  if (number(in, "max_pings_out", &value)) {
    keep(in, natsOptions_SetMaxPingsOut(in->opts, (int)value));
  }
  if (number(in, "max_reconnect", &value)) {
    keep(in, value == 0 ? natsOptions_SetAllowReconnect(in->opts, false)
                        : natsOptions_SetMaxReconnect(in->opts, (int)value));
  }
  if (number(in, "outage_buffer", &value)) {
    keep(in, natsOptions_SetReconnectBufSize(in->opts, (int)value));
  }
  if (flag(in, "in_order")) keep(in, natsOptions_SetNoRandomize(in->opts, true));
  keep(in, natsOptions_SetIOBufSize(in->opts, WEIR_LOOP_BUFFER));
}

natsOptions *weir_nats_check_options(lua_State *L, int index) {
  reader in = {.L = L, .index = lua_absindex(L, index), .status = NATS_OK};
  luaL_checktype(L, index, LUA_TTABLE);
  luaL_checkstack(L, 120, NULL);
  int top = lua_gettop(L);
  if (natsOptions_Create(&in.opts) != NATS_OK) luaL_error(L, "out of memory");
  set_connection(&in);
  set_servers(&in);
  set_credentials(&in);
  set_tls(&in);
  lua_settop(L, top);
  if (in.status == NATS_OK) return in.opts;
  const char *why = nats_GetLastError(NULL);
  lua_pushfstring(L, "%s (%s)", why != NULL ? why : "", natsStatus_GetText(in.status));
  natsOptions_Destroy(in.opts);
  lua_error(L);
  return NULL;
}
