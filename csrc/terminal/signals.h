/*
 * The signals of a prompt: SIGINT (Ctrl-C), SIGTSTP (Ctrl-Z), SIGTERM and SIGHUP.
 *
 * A handler notes the signal and writes a byte into a pipe, which a loop watches. Lua that computes
 * without giving the loop a turn is interrupted by a hook that counts instructions. Threads of Lua
 * inherit it, so it is in whatever coroutine computes: an input, a task, a handler.
 *
 * Signals are the process's, so all state here is, too. What the process ignored when it was
 * started (nohup, a shell without job control) stays ignored.
 */
#ifndef WEIR_TERMINAL_SIGNALS_H
#define WEIR_TERMINAL_SIGNALS_H

#include "lua/compat.h"

/* watch_signals(interrupt) -> a descriptor that becomes readable with each signal. From then on
 * `interrupt()`, which must raise an error, is called in Lua code that has computed for a while
 * since a SIGINT, SIGTERM or SIGHUP that nobody took: once for the first SIGINT; for a second one
 * and for the others at every instruction until somebody takes a signal, so that no pcall saves a
 * loop. A second SIGTERM that nobody takes ends the process. SIGTSTP is left alone until
 * weir_signals_stop_softly(). */
int weir_signals_watch(lua_State *L);

/* next_signal() -> "int", "tstp", "term" or "hup", which is taken with that; nil: there is none. */
int weir_signals_next(lua_State *L);

/* unwatch_signals(): signals do again what they did. */
int weir_signals_unwatch(lua_State *L);

/* What is to be done before a second SIGTERM ends the process; safe in a handler of signals. */
void weir_signals_before_death(void (*fn)(void));

/* Whether SIGTSTP is noted like the others, or stops the process at once. Does nothing unless the
 * signals are watched. */
void weir_signals_stop_softly(int softly);

/* Stops the process as SIGTSTP does by itself; returns when it goes on. */
void weir_signals_stop(void);

#endif
