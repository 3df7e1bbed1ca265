#include "io/resolve.h"

#include <stdlib.h>

struct weir_resolve {
  weir_io io;
  weir_loop *loop;
  uv_getaddrinfo_t req;
  bool pending;
  bool released;
  bool calling;
  weir_resolve_done done;
  void *user;
};

static void on_answer(uv_getaddrinfo_t *req, int error, struct addrinfo *list) {
  weir_resolve *resolve = req->data;
  resolve->pending = false;
  weir_list_remove(&resolve->io.link);
  if (!resolve->released) {
    resolve->loop->fed = true;
    resolve->calling = true;
    resolve->done(resolve, error, list, resolve->user);
    resolve->calling = false;
  }
  uv_freeaddrinfo(list);
  if (resolve->released) free(resolve);
}

void weir_resolve_free(weir_resolve *resolve) {
  weir_list_remove(&resolve->io.link);
  resolve->released = true;
  if (resolve->pending) {
    resolve->loop->touched = true;
    uv_cancel((uv_req_t *)&resolve->req); /* fails when it runs already: then it is waited for */
  } else if (!resolve->calling) {
    free(resolve);
  }
}

static void release(weir_io *io) { weir_resolve_free(weir_list_of(io, weir_resolve, io)); }

weir_resolve *weir_resolve_new(weir_loop *loop, const char *host, const char *service,
                               weir_resolve_done done, void *user, int *error) {
  weir_resolve *resolve = calloc(1, sizeof *resolve);
  if (resolve == NULL) {
    *error = UV_ENOMEM;
    return NULL;
  }
  resolve->loop = loop;
  resolve->done = done;
  resolve->user = user;
  resolve->req.data = resolve;
  struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_family = AF_UNSPEC};
  *error = uv_getaddrinfo(&loop->uv, &resolve->req, on_answer, host, service, &hints);
  if (*error != 0) {
    free(resolve);
    return NULL;
  }
  resolve->pending = true;
  loop->touched = true;
  weir_loop_own(loop, &resolve->io, release);
  return resolve;
}
