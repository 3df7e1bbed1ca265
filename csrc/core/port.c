#include "core/port.h"

#include <string.h>

#include "core/protocol.h"

bool weir_port_write(weir_port *port, const unsigned char *frame, size_t len) {
  weir_yamux_stream *stream = port->stream;
  if (stream == NULL) return false;
  const weir_slice slice = {NULL, frame, len};
  if (weir_yamux_write(stream, slice) == WEIR_OK) return true;
  weir_yamux_set_user(stream, NULL);
  port->stream = NULL;
  weir_yamux_reset(stream);
  return false;
}

void weir_port_close(weir_port *port, uint32_t code, const char *reason) {
  unsigned char frame[WEIR_CLOSE_SIZE];
  weir_port_write(port, frame, weir_write_close(frame, code, reason, strlen(reason)));
  weir_port_leave(port);
}
