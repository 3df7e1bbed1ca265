/*
 * weir_sigpipe: libuv's writes without SIGPIPE.
 *
 * Writing to a socket that the peer has closed raises SIGPIPE, which ends the process. A library
 * must not change what a signal means for the program and its children, and libuv's own writes
 * cannot be told MSG_NOSIGNAL: so the signal is held back while libuv may write, and taken away if
 * it came. The signal goes to the thread that writes, so nobody else's is lost.
 */
#ifndef WEIR_IO_SIGPIPE_H
#define WEIR_IO_SIGPIPE_H

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>

typedef struct weir_sigpipe {
  sigset_t mask;    /* the thread's signal mask before */
  bool was_pending; /* somebody else's, to be left alone */
} weir_sigpipe;

void weir_sigpipe_hold(weir_sigpipe *hold);
void weir_sigpipe_release(const weir_sigpipe *hold);

#endif
