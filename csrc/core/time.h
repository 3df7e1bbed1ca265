/*
 * Time in the core: unsigned 64-bit nanoseconds of a monotonic clock, which the caller reads and
 * passes in. The core has no clock of its own.
 */
#ifndef WEIR_TIME_H
#define WEIR_TIME_H

#include <stdint.h>

/* "No deadline". */
#define WEIR_NEVER UINT64_MAX

#define WEIR_SECOND UINT64_C(1000000000)
#define WEIR_MILLISECOND UINT64_C(1000000)

#endif
