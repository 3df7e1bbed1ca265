/*
 * weir_retry: when to try a request again.
 *
 * Exponential backoff with full jitter, the server's Retry-After as a floor, a bound on attempts
 * and a deadline. No clock and no randomness of its own: both are passed in.
 */
#ifndef WEIR_DURABLE_RETRY_H
#define WEIR_DURABLE_RETRY_H

#include <stdint.h>

#include "core/status.h"
#include "core/time.h"

typedef struct weir_retry_policy {
  uint32_t max_retries; /* after the first attempt; UINT32_MAX: no bound (the default) */
  uint64_t initial;     /* ns; default 100 ms */
  uint64_t max;         /* ns; default 60 s; at least initial */
  double multiplier;    /* default 1.3; at least 1 */
  uint64_t floor_max;   /* longest Retry-After that is obeyed, ns; default 1 h */
} weir_retry_policy;

typedef struct weir_retry {
  const weir_retry_policy *policy;
  uint32_t retries; /* since the last success */
  uint64_t ceiling; /* of the next delay, before jitter */
} weir_retry;

void weir_retry_policy_default(weir_retry_policy *policy);
/* OK, or INVALID for a policy that makes no sense; *field (may be NULL) then names what is wrong.
 */
weir_status weir_retry_policy_check(const weir_retry_policy *policy, const char **field);
/* `policy` must have passed the check, and outlive `retry`. */
void weir_retry_init(weir_retry *retry, const weir_retry_policy *policy);
/* An attempt succeeded: the next failure is a first one again. */
void weir_retry_reset(weir_retry *retry);
/* An attempt failed: *at is when to try again, drawn evenly from now to now + ceiling but not
 * before the server wants it. LIMIT when the attempts are used up. `retry_after`: seconds, or
 * UINT64_MAX; `random`: 64 evenly distributed bits. */
weir_status weir_retry_next(weir_retry *retry, uint64_t now, uint64_t random, uint64_t retry_after,
                            uint64_t *at);

#endif
