#include "core/durable/retry.h"

#include <stddef.h>

/* Far from the end of 64 bits, so that sums of delays cannot overflow. */
#define MAX_DELAY (UINT64_C(1000000) * 3600 * WEIR_SECOND)

void weir_retry_policy_default(weir_retry_policy *policy) {
  *policy = (weir_retry_policy){
      .max_retries = UINT32_MAX,
      .initial = 100 * WEIR_MILLISECOND,
      .max = 60 * WEIR_SECOND,
      .multiplier = 1.3,
      .floor_max = 3600 * WEIR_SECOND,
  };
}

static const char *wrong_field(const weir_retry_policy *policy) {
  if (policy->initial < 1 || policy->initial > MAX_DELAY) return "initial";
  if (policy->max < policy->initial || policy->max > MAX_DELAY) return "max";
  if (!(policy->multiplier >= 1)) return "multiplier"; /* so that NaN fails, too */
  if (policy->floor_max > MAX_DELAY) return "floor_max";
  return NULL;
}

weir_status weir_retry_policy_check(const weir_retry_policy *policy, const char **field) {
  const char *wrong = wrong_field(policy);
  if (wrong == NULL) return WEIR_OK;
  if (field != NULL) *field = wrong;
  return WEIR_E_INVALID;
}

void weir_retry_init(weir_retry *retry, const weir_retry_policy *policy) {
  retry->policy = policy;
  weir_retry_reset(retry);
}

void weir_retry_reset(weir_retry *retry) {
  retry->retries = 0;
  retry->ceiling = retry->policy->initial;
}

static uint64_t grown(const weir_retry *retry) {
  const double ceiling = (double)retry->ceiling * retry->policy->multiplier;
  return ceiling < (double)retry->policy->max ? (uint64_t)ceiling : retry->policy->max;
}

/* What the server asked for, as far as it is obeyed. */
static uint64_t floor_of(const weir_retry *retry, uint64_t retry_after) {
  const uint64_t max = retry->policy->floor_max;
  if (retry_after == UINT64_MAX) return 0;
  return retry_after <= max / WEIR_SECOND ? retry_after * WEIR_SECOND : max;
}

weir_status weir_retry_next(weir_retry *retry, uint64_t now, uint64_t random, uint64_t retry_after,
                            uint64_t *at) {
  const uint32_t max = retry->policy->max_retries;
  if (max != UINT32_MAX && retry->retries >= max) return WEIR_E_LIMIT;
  if (retry->retries < UINT32_MAX) retry->retries++;
  const double part = (double)(random >> 11) * 0x1p-53; /* evenly from [0, 1) */
  const uint64_t jittered = (uint64_t)((double)retry->ceiling * part);
  const uint64_t least = floor_of(retry, retry_after);
  const uint64_t delay = jittered > least ? jittered : least;
  *at = delay < WEIR_NEVER - now ? now + delay : WEIR_NEVER - 1;
  retry->ceiling = grown(retry);
  return WEIR_OK;
}
