/*
 * weir_status: the one set of results that core functions return.
 *
 * 0 is success and failures are negative. weir_status_name() gives the stable, lower-case name that
 * Lua shows as err.code; weir_status_text() a sentence for people.
 */
#ifndef WEIR_STATUS_H
#define WEIR_STATUS_H

typedef enum weir_status {
  WEIR_OK = 0,
  WEIR_E_AGAIN = -1,    /* would have to wait: no room, no credit, nothing queued */
  WEIR_E_NOMEM = -2,    /* the allocator refused */
  WEIR_E_LIMIT = -3,    /* a configured limit would be exceeded */
  WEIR_E_PROTOCOL = -4, /* the peer broke the protocol */
  WEIR_E_VERSION = -5,  /* the peer speaks a version that we do not */
  WEIR_E_CLOSED = -6,   /* the object is closed, or its peer closed it */
  WEIR_E_RESET = -7,    /* the peer reset the stream */
  WEIR_E_TIMEOUT = -8,  /* a deadline passed */
  WEIR_E_INVALID = -9,  /* an argument is out of range */
  WEIR_E_OFFLINE = -10  /* nobody is there to receive */
} weir_status;

const char *weir_status_name(weir_status status);
const char *weir_status_text(weir_status status);

#endif
