/*
 * weir_timers: deadlines in order, without a clock.
 *
 * Add deadlines, ask for the next one, and take those that are over: first by deadline, then in the
 * order in which they were added. Each timer carries a `token`, which means something to the caller
 * only. Adding, cancelling and taking cost O(log n); a timer costs 36 bytes, in two arrays that
 * grow by doubling and are freed when the last timer goes after there were many.
 *
 * Deadlines are nanoseconds of any clock; WEIR_NEVER is a legal one that never comes.
 */
#ifndef WEIR_TIMERS_H
#define WEIR_TIMERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/alloc.h"
#include "core/status.h"
#include "core/time.h"

#define WEIR_TIMERS_MAX (1u << 26) /* timers at a time */
#define WEIR_TIMERS_KEEP 64        /* room for this many is kept when there is none */

typedef struct weir_timer weir_timer;

typedef struct weir_timers {
  const weir_alloc *alloc;
  weir_timer *heap; /* 4-ary: children of i are 4i+1 .. 4i+4 */
  uint32_t *slots;  /* by slot: place in the heap, or next free slot */
  uint32_t count;   /* timers */
  uint32_t size;    /* room, in timers */
  uint32_t used;    /* slots that were ever handed out */
  uint32_t free;    /* first free slot among these, or UINT32_MAX */
  uint64_t added;   /* timers ever added */
} weir_timers;

void weir_timers_init(weir_timers *timers, const weir_alloc *alloc);
/* Drops all timers and frees the memory. May be used again; old ids stay unknown. */
void weir_timers_clear(weir_timers *timers);
/* The same as clear: it may be forgotten afterwards. */
static inline void weir_timers_free(weir_timers *timers) { weir_timers_clear(timers); }

static inline size_t weir_timers_count(const weir_timers *timers) { return timers->count; }

/* *id names the timer until it is taken or cancelled, is never 0, and is below 2^53, so that a Lua
 * number of any Lua can hold it. WEIR_E_NOMEM; WEIR_E_LIMIT beyond WEIR_TIMERS_MAX. */
weir_status weir_timers_add(weir_timers *timers, uint64_t deadline, uint64_t token, uint64_t *id);

/* Whether there was such a timer; then *token (unless NULL) is its token. An id whose timer is gone
 * is unknown even where the memory behind it serves another timer (until 2^26 more were added). */
bool weir_timers_cancel(weir_timers *timers, uint64_t id, uint64_t *token);

/* The next deadline, or WEIR_NEVER. */
uint64_t weir_timers_next(const weir_timers *timers);

/* Takes the first timer whose deadline is at or before `now`; false when there is none. `id` and
 * `token` may be NULL. */
bool weir_timers_expired(weir_timers *timers, uint64_t now, uint64_t *id, uint64_t *token);

#endif
