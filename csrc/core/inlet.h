/*
 * The consumer's end of a subscription on a session: SUBSCRIBE goes out, START, DATA, GAP, SYNC and
 * CLOSE come in, CREDIT goes back as the application takes messages.
 *
 * What it holds is bounded by the credit that it grants (the consumer's max_items and max_bytes);
 * a producer that sends more breaks the protocol and is closed with WEIR_CLOSE_PROTOCOL.
 */
#ifndef WEIR_INLET_H
#define WEIR_INLET_H

#include "core/consumer.h"
#include "core/protocol.h"
#include "core/yamux.h"

/* Subscribes on a new stream of `yamux`. The credit in `subscribe` is filled in here; the network
 * and stream ids in START must equal those in `subscribe`. `node`: the peer's id. Errors as of
 * weir_yamux_open(), and LIMIT when a field of `subscribe` is too long. */
weir_status weir_inlet_subscribe(weir_consumer *consumer, weir_yamux *yamux,
                                 weir_subscribe *subscribe, const unsigned char *node,
                                 weir_inlet **inlet);

#endif
