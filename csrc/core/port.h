/*
 * weir_port: what stands at our end of a yamux stream of a session.
 *
 * The control stream, a subscription that has not said what it wants, and the two ends of a
 * subscription each embed a port as their FIRST member; the session hands it what happens on its
 * stream. A stream without a port is one that we are done with: what still comes is skipped.
 */
#ifndef WEIR_PORT_H
#define WEIR_PORT_H

#include <stdbool.h>
#include <stddef.h>

#include "core/status.h"
#include "core/yamux.h"

typedef struct weir_port weir_port;

typedef struct weir_port_type {
  void (*data)(weir_port *port, const unsigned char *data, size_t len);
  void (*writable)(weir_port *port); /* may be NULL */
  /* The peer will send no more. The stream itself may go on. */
  void (*end)(weir_port *port);
  /* The stream is gone; port->stream is NULL already. */
  void (*closed)(weir_port *port, weir_status reason);
} weir_port_type;

struct weir_port {
  const weir_port_type *type;
  weir_yamux_stream *stream; /* NULL once it is gone or let go */
};

static inline void weir_port_bind(weir_port *port, const weir_port_type *type,
                                  weir_yamux_stream *stream) {
  port->type = type;
  port->stream = stream;
  weir_yamux_set_user(stream, port);
}

/* Lets go of the stream: half-closes it; what still comes on it is skipped. */
static inline void weir_port_leave(weir_port *port) {
  if (port->stream == NULL) return;
  weir_yamux_set_user(port->stream, NULL);
  weir_yamux_shutdown(port->stream);
  port->stream = NULL;
}

/* Queues a small frame. A stream that cannot take it (the peer does not read; memory is out) is
 * reset and let go, without a call of closed(): then false, and port->stream is NULL. */
bool weir_port_write(weir_port *port, const unsigned char *frame, size_t len);
/* Says why, then leaves. */
void weir_port_close(weir_port *port, uint32_t code, const char *reason);

#endif
