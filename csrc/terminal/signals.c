/* sigaction and clock_gettime are POSIX's. */
#define _POSIX_C_SOURCE 200809L
#include "terminal/signals.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define INSTRUCTIONS 10000   /* between two looks */
#define LOOKS 10             /* before what computes is interrupted: others do less in a turn */
#define PATIENCE 200000000LL /* nanoseconds that the loop has to see a signal */
#define LOOP_PATIENCE 1000000000LL /* the same for code of the loop itself */

enum {
  INT,
  TERM,
  HUP,
  TSTP,
  SIGNALS
};

static const struct {
  int number;
  const char *name;
} ABOUT[SIGNALS] = {
    [INT] = {SIGINT, "int"},
    [TERM] = {SIGTERM, "term"},
    [HUP] = {SIGHUP, "hup"},
    [TSTP] = {SIGTSTP, "tstp"},
};

static volatile sig_atomic_t pending[SIGNALS];
static volatile sig_atomic_t any;        /* whether one that ends computing is pending */
static volatile sig_atomic_t raised;     /* the hook raised, and no loop has run since */
static volatile sig_atomic_t relentless; /* raising once was not, or will not be, enough */
static volatile sig_atomic_t looks;      /* since a signal that nobody took */
static volatile int64_t since;           /* when the first pending one came */
static struct sigaction former[SIGNALS];
static int watched[SIGNALS];
static int ends[2] = {-1, -1};
static int interrupt_ref = LUA_NOREF;
static void (*before_death)(void);

/* --- handlers --------------------------------------------------------------------------------- */

static int64_t now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

/* Somebody insists, and nobody sees to it. */
static void die(int number) {
  if (before_death != NULL) before_death();
  signal(number, SIG_DFL);
  raise(number);
}

static void on_signal(int number) {
  const int saved = errno;
  if (number == SIGTERM && pending[TERM]) die(number);
  if (number == SIGINT && (pending[INT] || raised)) relentless = 1;
  for (int i = 0; i < SIGNALS; i++) {
    if (ABOUT[i].number == number) pending[i] = 1;
  }
  if (number != SIGTSTP && !any) {
    since = now();
    any = 1;
  }
  const ssize_t ignored = write(ends[1], "s", 1); /* full: one is enough */
  (void)ignored;
  errno = saved;
}

static void take_over(int i) {
  struct sigaction action;
  if (watched[i] || sigaction(ABOUT[i].number, NULL, &former[i]) != 0) return;
  if (former[i].sa_handler == SIG_IGN) return;
  memset(&action, 0, sizeof action);
  action.sa_handler = on_signal;
  action.sa_flags = SA_RESTART;
  watched[i] = sigaction(ABOUT[i].number, &action, NULL) == 0;
}

static void give_back(int i) {
  if (watched[i]) sigaction(ABOUT[i].number, &former[i], NULL);
  watched[i] = 0;
  pending[i] = 0;
}

/* --- the hook --------------------------------------------------------------------------------- */

static int is_main(lua_State *L) {
  const int main = lua_pushthread(L);
  lua_pop(L, 1);
  return main;
}

/* Whether what computes has had its time. The loop's own code is not interrupted lightly: what it
 * was about to do would not be done. */
static int is_over(lua_State *L) {
  const int main = is_main(L);
  if (relentless && raised && !main) return 1;
  return any && ++looks >= LOOKS && now() - since >= (main ? LOOP_PATIENCE : PATIENCE);
}

static void on_count(lua_State *L, lua_Debug *info) {
  (void)info;
  if (!any && !relentless) {
    if (lua_gethookcount(L) == 1) lua_sethook(L, on_count, LUA_MASKCOUNT, INSTRUCTIONS);
    return;
  }
  if (!is_over(L)) return;
  pending[INT] = 0;
  raised = 1;
  any = pending[TERM] || pending[HUP];
  if (any) relentless = 1;
  if (relentless && !is_main(L)) lua_sethook(L, on_count, LUA_MASKCOUNT, 1);
  lua_rawgeti(L, LUA_REGISTRYINDEX, interrupt_ref);
  lua_call(L, 0, 0);
}

/* Threads that are made from now on have the hook of the main one, in which the loop runs. The one
 * that reads inputs is there already, and is not to be interrupted. */
static void hook(lua_State *L, lua_Hook fn) {
  lua_rawgeti(L, LUA_REGISTRYINDEX, LUA_RIDX_MAINTHREAD);
  lua_State *main = lua_tothread(L, -1);
  lua_pop(L, 1);
  if (main != NULL) lua_sethook(main, fn, fn != NULL ? LUA_MASKCOUNT : 0, INSTRUCTIONS);
}

/* --- for Lua ---------------------------------------------------------------------------------- */

int weir_signals_watch(lua_State *L) {
  luaL_checktype(L, 1, LUA_TFUNCTION);
  if (ends[0] < 0) {
    if (pipe(ends) != 0) return luaL_error(L, "no pipe: %s", strerror(errno));
    for (int i = 0; i < 2; i++) {
      fcntl(ends[i], F_SETFD, FD_CLOEXEC);
      fcntl(ends[i], F_SETFL, O_NONBLOCK);
    }
    lua_pushvalue(L, 1);
    interrupt_ref = luaL_ref(L, LUA_REGISTRYINDEX);
    hook(L, on_count);
    for (int i = 0; i < TSTP; i++)
      take_over(i);
  }
  lua_pushinteger(L, ends[0]);
  return 1;
}

int weir_signals_next(lua_State *L) {
  char bytes[64];
  while (ends[0] >= 0 && read(ends[0], bytes, sizeof bytes) > 0)
    continue;
  any = raised = relentless = looks = 0; /* the loop runs */
  for (int i = 0; i < SIGNALS; i++) {
    if (pending[i]) {
      pending[i] = 0;
      lua_pushstring(L, ABOUT[i].name);
      return 1;
    }
  }
  lua_pushnil(L);
  return 1;
}

int weir_signals_unwatch(lua_State *L) {
  if (ends[0] < 0) return 0;
  before_death = NULL;
  for (int i = 0; i < SIGNALS; i++)
    give_back(i);
  any = raised = relentless = 0;
  hook(L, NULL);
  luaL_unref(L, LUA_REGISTRYINDEX, interrupt_ref);
  interrupt_ref = LUA_NOREF;
  close(ends[0]);
  close(ends[1]);
  ends[0] = ends[1] = -1;
  return 0;
}

void weir_signals_before_death(void (*fn)(void)) { before_death = fn; }

/* --- stopping --------------------------------------------------------------------------------- */

void weir_signals_stop_softly(int softly) {
  if (softly && ends[0] >= 0) {
    take_over(TSTP);
  } else {
    give_back(TSTP);
  }
}

void weir_signals_stop(void) {
  const int soft = watched[TSTP];
  give_back(TSTP);
  raise(SIGTSTP);
  if (soft) take_over(TSTP);
}
