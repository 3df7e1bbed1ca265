#include "core/backoff.h"

#include <stddef.h>

/* Far from the end of 64 bits, so that sums of intervals cannot overflow. */
#define MAX_INTERVAL (UINT64_C(1000000) * 3600 * WEIR_SECOND)

weir_backoff_config weir_backoff_defaults(void) {
  return (weir_backoff_config){
      .initial = 500 * WEIR_MILLISECOND,
      .max = 60 * WEIR_SECOND,
      .max_elapsed = 0,
      .factor = 1.5,
      .jitter = 0.5,
  };
}

weir_status weir_backoff_init(weir_backoff *backoff, const weir_backoff_config *config) {
  weir_backoff_config c = config != NULL ? *config : weir_backoff_defaults();
  /* Written so that NaN fails them, too. */
  bool valid = c.initial >= 1 && c.initial <= c.max && c.max <= MAX_INTERVAL && c.factor >= 1.0 &&
               c.jitter >= 0.0 && c.jitter <= 1.0;
  if (!valid) return WEIR_E_INVALID;
  if (c.max_elapsed == 0) c.max_elapsed = WEIR_NEVER;
  backoff->config = c;
  weir_backoff_reset(backoff);
  return WEIR_OK;
}

/* Evenly from [0, 1), with the 53 bits that a double holds. */
static double unit(uint64_t random) { return (double)(random >> 11) * 0x1p-53; }

static uint64_t jittered(const weir_backoff *backoff, uint64_t random) {
  double spread = backoff->config.jitter * (2.0 * unit(random) - 1.0);
  return (uint64_t)((double)backoff->interval * (1.0 + spread));
}

static uint64_t grown(const weir_backoff *backoff) {
  double interval = (double)backoff->interval * backoff->config.factor;
  return interval < (double)backoff->config.max ? (uint64_t)interval : backoff->config.max;
}

/* Time until giving up. */
static uint64_t time_left(const weir_backoff *backoff, uint64_t now) {
  uint64_t limit = backoff->config.max_elapsed;
  uint64_t elapsed = now > backoff->since ? now - backoff->since : 0;
  if (limit == WEIR_NEVER) return WEIR_NEVER;
  return elapsed < limit ? limit - elapsed : 0;
}

weir_status weir_backoff_next(weir_backoff *backoff, uint64_t now, uint64_t random,
                              uint64_t *delay) {
  if (!backoff->failing) {
    backoff->failing = true;
    backoff->since = now;
  }
  uint64_t left = time_left(backoff, now);
  if (left == 0) return WEIR_E_TIMEOUT;
  uint64_t wait = jittered(backoff, random);
  *delay = wait < left ? wait : left;
  backoff->interval = grown(backoff);
  return WEIR_OK;
}

void weir_backoff_reset(weir_backoff *backoff) {
  backoff->failing = false;
  backoff->since = 0;
  backoff->interval = backoff->config.initial;
}

uint64_t weir_backoff_random(uint64_t *state) {
  uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);
  z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
  z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
  return z ^ (z >> 31);
}
