/*
 * The producer's end of a subscription on a session: moves frames from the producer's ring into the
 * yamux stream, as far as the consumer's credit and the stream's window allow, and listens for
 * CREDIT and CLOSE.
 *
 * An outlet owns itself: it is freed when its stream is gone.
 */
#ifndef WEIR_OUTLET_H
#define WEIR_OUTLET_H

#include "core/frame.h"
#include "core/producer.h"
#include "core/protocol.h"
#include "core/yamux.h"

/* Accepts a subscription: attaches to `producer`, sends START (network, stream and codec as in
 * `start`; the position is filled in) and, when the consumer asked to resume from a position that
 * the ring does not hold any more, GAP. The stream's port becomes the outlet's, and so does what
 * `reader` has of a frame that is not all there yet. `id`: the subscriber's. NOMEM, CLOSED and
 * LIMIT (the codec or schema is too long) leave stream and reader as they were. */
weir_status weir_outlet_accept(const weir_alloc *alloc, weir_producer *producer,
                               weir_yamux_stream *stream, weir_frame_reader *reader,
                               const weir_subscribe *subscribe, weir_start *start, uint64_t *id);

typedef struct weir_outlet_gauge {
  uint64_t credit_items, credit_bytes; /* granted and not used */
  uint64_t rtt;                        /* of its session, ns; 0 unknown */
} weir_outlet_gauge;

/* False for a subscriber that is not an outlet (a local consumer). */
bool weir_outlet_gauge_of(const weir_subscriber *subscriber, weir_outlet_gauge *gauge);

#endif
