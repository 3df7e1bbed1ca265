/*
 * weir_backoff: how long to wait before trying again.
 *
 * Exponential: the interval starts at `initial`, is multiplied by `factor` after each failure and
 * stays at `max`. Each delay is drawn evenly from interval * (1 +- jitter), so that many clients of
 * one failed peer do not come back together; it may so exceed `max` by the jitter.
 *
 * `max_elapsed` limits the time since the FIRST failure after the last success. A connection that
 * worked for hours and then fails therefore gets its full share of attempts.
 *
 * A plain value without memory, clock or randomness of its own: the caller passes both in. Times
 * are nanoseconds.
 */
#ifndef WEIR_BACKOFF_H
#define WEIR_BACKOFF_H

#include <stdbool.h>
#include <stdint.h>

#include "core/status.h"
#include "core/time.h"

typedef struct weir_backoff_config {
  uint64_t initial;     /* first interval, at least 1 */
  uint64_t max;         /* largest interval, at least `initial`, at most a million hours */
  uint64_t max_elapsed; /* give up after this; 0 or WEIR_NEVER: never */
  double factor;        /* at least 1 */
  double jitter;        /* 0 (none) to 1 (between nothing and twice the interval) */
} weir_backoff_config;

typedef struct weir_backoff {
  weir_backoff_config config;
  uint64_t since;    /* time of the first failure, if failing */
  uint64_t interval; /* of the next delay */
  bool failing;
} weir_backoff;

/* 500 ms, times 1.5, up to 60 s, +-50 %, for ever. */
weir_backoff_config weir_backoff_defaults(void);

/* WEIR_E_INVALID when a value is out of its range. NULL means the defaults. */
weir_status weir_backoff_init(weir_backoff *backoff, const weir_backoff_config *config);

/* An attempt failed at `now`: *delay is how long to wait. `random`: 64 evenly distributed bits.
 * WEIR_E_TIMEOUT: give up; also from then on, until reset. The last delay before that is cut so
 * that it ends when max_elapsed does. */
weir_status weir_backoff_next(weir_backoff *backoff, uint64_t now, uint64_t random,
                              uint64_t *delay);

/* An attempt succeeded: the next failure is a first one again. */
void weir_backoff_reset(weir_backoff *backoff);

/* Splitmix64, which is random enough for jitter: the next 64 bits from *state, any start value. */
uint64_t weir_backoff_random(uint64_t *state);

#endif
