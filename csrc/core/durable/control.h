/*
 * weir_durable_control: the control event that a live stream of server-sent events sends behind its
 * data (a JSON object; members other than these are ignored).
 */
#ifndef WEIR_DURABLE_CONTROL_H
#define WEIR_DURABLE_CONTROL_H

#include <stdbool.h>
#include <stddef.h>

#include "core/durable/response.h"
#include "core/status.h"

typedef struct weir_durable_control {
  weir_durable_text next_offset; /* streamNextOffset; always there */
  weir_durable_text cursor;      /* streamCursor; len 0: none */
  bool up_to_date;               /* upToDate, or implied by closed */
  bool closed;                   /* streamClosed */
} weir_durable_control;

/* PROTOCOL: not a JSON object, or a member is missing, too long or of the wrong type. */
weir_status weir_durable_control_parse(const void *text, size_t len, weir_durable_control *control);

#endif
