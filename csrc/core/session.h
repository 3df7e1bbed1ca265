/*
 * weir_session: two nodes on one connection.
 *
 * A weir_endpoint for a driver on one side; on the other what the nodes say to each other: who they
 * are (HELLO), what they produce (ANNOUNCE), and subscriptions, each on a yamux stream of its own.
 * The session decides nothing: it hands requests to subscribe to the application, which accepts
 * them with a producer or rejects them with a reason.
 *
 * Everything that the peer can make grow is bounded: streams and unanswered requests by yamux's
 * limits, a stream that does not say what it wants by `handshake_timeout`, announcements that wait
 * for the application in number and bytes.
 */
#ifndef WEIR_SESSION_H
#define WEIR_SESSION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/alloc.h"
#include "core/consumer.h"
#include "core/endpoint.h"
#include "core/hub.h"
#include "core/producer.h"
#include "core/protocol.h"
#include "core/yamux.h"

typedef struct weir_session weir_session;

typedef struct weir_session_config {
  bool client; /* the side that connected */
  unsigned char network[WEIR_ID_SIZE];
  unsigned char node[WEIR_ID_SIZE]; /* ours */
  const weir_slice *tags;           /* copied */
  size_t tag_count;
  weir_slice agent;
  uint64_t handshake_timeout; /* ns for HELLO and for a stream's first frame. Default 10 s */
  uint32_t max_streams;       /* as in weir_yamux_config, as the next three */
  uint32_t backlog;
  uint64_t keepalive, keepalive_timeout;
} weir_session_config; /* 0 in a field means its default */

/* NULL when memory is out or a tag is too long. The hub must outlive the session. */
weir_session *weir_session_new(const weir_alloc *alloc, weir_hub *hub,
                               const weir_session_config *config);
void weir_session_free(weir_session *session);
weir_endpoint *weir_session_endpoint(weir_session *session);
weir_source *weir_session_source(weir_session *session);
weir_yamux *weir_session_yamux(weir_session *session);

/* What the peer said of itself; NULL before WEIR_SESSION_READY. */
const weir_hello *weir_session_peer(const weir_session *session);
/* Says goodbye and ends the session once all that is queued has been written. */
void weir_session_close(weir_session *session, uint32_t code, const char *reason);
/* Whether the session has ended, from whichever side, and why. */
bool weir_session_ended(const weir_session *session, uint32_t *code, const char **reason);

/* Tells the peer what we (no longer) produce: `count` ids of WEIR_ID_SIZE bytes. Returns how many
 * were taken; WEIR_SESSION_WRITABLE tells when more can be. */
size_t weir_session_announce(weir_session *session, bool add, const unsigned char *ids,
                             size_t count);
/* What the peer told: false when there is nothing more. */
bool weir_session_next_announcement(weir_session *session, bool *add,
                                    unsigned char stream[WEIR_ID_SIZE]);

/* Subscribes `consumer`; the ids in `subscribe` other than `stream` are filled in. AGAIN: too many
 * wait for the peer's answer, WEIR_SESSION_WRITABLE tells; CLOSED; LIMIT; NOMEM. */
weir_status weir_session_subscribe(weir_session *session, weir_consumer *consumer,
                                   weir_subscribe *subscribe, weir_inlet **inlet);

/* A request of the peer to subscribe. Slices borrow until it is answered. */
typedef struct weir_request {
  uint64_t id; /* unique in its session */
  weir_subscribe subscribe;
} weir_request;

/* The next request to be answered, or NULL. */
const weir_request *weir_session_next_request(weir_session *session);
/* Answers a request. CLOSED: the peer does not wait any more, or it was answered. */
weir_status weir_session_accept(weir_session *session, uint64_t request, weir_producer *producer,
                                weir_slice codec, weir_slice schema, uint64_t *subscriber);
weir_status weir_session_reject(weir_session *session, uint64_t request, uint32_t code,
                                const char *reason);

#endif
