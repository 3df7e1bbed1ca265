#include "io/sigpipe.h"

static bool is_pending(void) {
  sigset_t pending;
  return sigpending(&pending) == 0 && sigismember(&pending, SIGPIPE) == 1;
}

void weir_sigpipe_hold(weir_sigpipe *hold) {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGPIPE);
  hold->was_pending = is_pending();
  pthread_sigmask(SIG_BLOCK, &set, &hold->mask);
}

void weir_sigpipe_release(const weir_sigpipe *hold) {
  if (!hold->was_pending && is_pending()) {
    sigset_t set;
    int number = 0;
    sigemptyset(&set);
    sigaddset(&set, SIGPIPE);
    sigwait(&set, &number);
  }
  pthread_sigmask(SIG_SETMASK, &hold->mask, NULL);
}
