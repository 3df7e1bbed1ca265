#include "io/http.h"

#include <curl/curl.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/sigpipe.h"

/* Handles of libcurl that are kept for the next requests, with the memory they have. */
#define SPARE_HANDLES 16
/* libcurl's own buffer: so much is read from a socket in one go. */
#define READ_SIZE (64L * 1024L)
/* Of a compressed answer that may become a thousand times as much, all of which libcurl holds while
 * nobody takes it. It refuses to hold more than 64 MiB. */
#define PACKED_READ_SIZE (32L * 1024L)
#define GROW_MIN ((size_t)16 * 1024)
#define NO_TIMER UINT64_C(0)
/* How often libcurl may want to go on at once before others have their turn. */
#define WORK_ROUNDS 8

struct weir_http {
  weir_io io;
  weir_alarm alarm; /* libcurl's timer */
  weir_chore work;
  weir_loop *loop;
  CURLM *multi;
  uint64_t timer;
  bool due;
  weir_list requests; /* in progress */
  weir_list resuming; /* those of them that go on after a pause */
  size_t active;
  CURL *spare[SPARE_HANDLES];
  size_t spares;
  char *ca, *cert, *key, *proxy;
  weir_http_options options; /* its strings are the copies */
};

typedef struct field_at {
  uint32_t name, name_len, value, value_len; /* in `head` */
} field_at;

typedef struct bytes {
  unsigned char *data;
  size_t start, len, cap;
} bytes;

struct weir_http_request {
  weir_io io;
  weir_link link;     /* in weir_http.requests */
  weir_link resuming; /* in weir_http.resuming */
  weir_alarm alarm;
  weir_chore notice;
  weir_loop *loop;
  weir_http *http; /* NULL: ended */
  CURL *easy;
  struct curl_slist *fields;
  uint64_t timer;
  uint64_t whole_at, head_at; /* deadlines */
  uint64_t idle, active_at;
  curl_off_t uploaded; /* when it was last looked at */
  weir_http_changed changed;
  void *user;

  bytes head;
  size_t head_bytes; /* of everything that counts as head */
  field_at *field;
  size_t field_count, field_cap;
  int status;
  bool in_head, head_done;

  bytes in, out;
  bool streamed, finished;
  bool in_paused, out_paused;
  bool dropped; /* what libcurl still has is not wanted */
  bool idempotent;
  unsigned tries; /* connections that it was given */

  bool ended, sent;
  weir_http_error error;
  const char *system;
  char message[CURL_ERROR_SIZE];
  char said[CURL_ERROR_SIZE]; /* by libcurl */
};

/* --- small things -------------------------------------------------------------------------------
 */

static bool bytes_reserve(bytes *b, size_t more) {
  if (b->start + b->len + more <= b->cap) return true;
  if (b->start > 0 && b->len + more <= b->cap) {
    memmove(b->data, b->data + b->start, b->len);
    b->start = 0;
    return true;
  }
  size_t cap = b->cap < GROW_MIN ? GROW_MIN : b->cap;
  while (cap < b->len + more) {
    cap *= 2;
  }
  unsigned char *data = malloc(cap);
  if (data == NULL) return false;
  if (b->len > 0) memcpy(data, b->data + b->start, b->len);
  free(b->data);
  *b = (bytes){.data = data, .len = b->len, .cap = cap};
  return true;
}

static bool bytes_add(bytes *b, const void *data, size_t len) {
  if (len == 0) return true;
  if (!bytes_reserve(b, len)) return false;
  memcpy(b->data + b->start + b->len, data, len);
  b->len += len;
  return true;
}

static void bytes_free(bytes *b) {
  free(b->data);
  *b = (bytes){0};
}

static bool copy_string(char **to, const char *from) {
  if (from == NULL) return true;
  *to = strdup(from);
  return *to != NULL;
}

static uint64_t after(uint64_t now, uint64_t span) {
  return span >= WEIR_NEVER - now ? WEIR_NEVER : now + span;
}

static void notify(weir_http_request *request) { weir_loop_soon(request->loop, &request->notice); }

static void fail(weir_http_request *request, weir_http_error error, const char *message) {
  if (request->error != WEIR_HTTP_OK) return;
  request->error = error;
  snprintf(request->message, sizeof request->message, "%s", message);
}

/* --- timeouts -----------------------------------------------------------------------------------
 */

/* While the application is what is waited for, silence is not the peer's. */
static uint64_t idle_at(const weir_http_request *request) {
  if (request->tries == 0 || request->in_paused || request->out_paused) return WEIR_NEVER;
  return after(request->active_at, request->idle);
}

static uint64_t next_due(const weir_http_request *request) {
  uint64_t due = request->whole_at;
  uint64_t idle = idle_at(request);
  if (!request->head_done && request->head_at < due) due = request->head_at;
  return idle < due ? idle : due;
}

static void disarm(weir_http_request *request) {
  if (request->timer != NO_TIMER) {
    weir_timers_cancel(&request->loop->timers, request->timer, NULL);
  }
  request->timer = NO_TIMER;
}

/* The alarm looks again when it comes too early: so what only moves a deadline back costs nothing.
 * False: out of memory, and there is no timer. */
static bool arm(weir_http_request *request, bool anew) {
  if (anew) disarm(request);
  uint64_t due = next_due(request);
  if (request->timer != NO_TIMER || due == WEIR_NEVER) return true;
  uint64_t token = (uint64_t)(uintptr_t)&request->alarm;
  return weir_timers_add(&request->loop->timers, due, token, &request->timer) == WEIR_OK;
}

static void alive(weir_http_request *request) {
  request->active_at = uv_hrtime();
  if (request->timer == NO_TIMER) (void)arm(request, false); /* if not, the next bytes try again */
}

/* --- the end ------------------------------------------------------------------------------------
 */

static void note_sent(weir_http_request *request) {
  long size = 0;
  curl_easy_getinfo(request->easy, CURLINFO_REQUEST_SIZE, &size);
  request->sent = request->tries > 0 && size > 0;
}

static void keep_handle(weir_http *http, CURL *easy, bool empty) {
  if (!empty || http->spares == SPARE_HANDLES) {
    curl_easy_cleanup(easy);
    return;
  }
  curl_easy_reset(easy);
  http->spare[http->spares++] = easy;
}

/* What libcurl holds of a paused answer it forgets with the connection, but not while that serves
 * others: then the next request of the handle would get it. Letting it go on is what empties it.
 * False: it may still be there. */
static bool drop_held(weir_http_request *request) {
  if (!request->in_paused) return true;
  request->dropped = true;
  return curl_easy_pause(request->easy, CURLPAUSE_SEND) == CURLE_OK;
}

/* Takes the request from its client: nothing of libcurl's is left in it. */
static void end(weir_http_request *request) {
  weir_http *http = request->http;
  if (http == NULL) return;
  note_sent(request);
  weir_sigpipe hold;
  weir_sigpipe_hold(&hold);
  bool empty = drop_held(request);
  curl_multi_remove_handle(http->multi, request->easy);
  weir_sigpipe_release(&hold);
  keep_handle(http, request->easy, empty);
  request->easy = NULL;
  request->http = NULL;
  request->ended = true;
  weir_list_remove(&request->link);
  weir_list_remove(&request->resuming);
  disarm(request);
  curl_slist_free_all(request->fields);
  request->fields = NULL;
  bytes_free(&request->out);
  http->active--;
  request->loop->pending--;
}

/* Nobody is told of the bytes of a body that libcurl has as a whole: one has to look. */
static bool uploads(weir_http_request *request, uint64_t now) {
  curl_off_t uploaded = request->uploaded;
  curl_easy_getinfo(request->easy, CURLINFO_SIZE_UPLOAD_T, &uploaded);
  if (uploaded == request->uploaded) return false;
  request->uploaded = uploaded;
  request->active_at = now;
  return true;
}

static void on_timeout(weir_alarm *alarm, uint64_t now) {
  weir_http_request *request = weir_list_of(alarm, weir_http_request, alarm);
  request->timer = NO_TIMER;
  bool idle = now >= idle_at(request) && !uploads(request, now);
  if (!idle && now < next_due(request)) {
    (void)arm(request, false); /* in the place of the timer that is gone */
    return;
  }
  if (now >= request->whole_at) {
    fail(request, WEIR_HTTP_TIMEOUT, "the exchange was not over in time");
  } else if (!request->head_done && now >= request->head_at) {
    fail(request, WEIR_HTTP_TIMEOUT, "the server did not answer in time");
  } else {
    fail(request, WEIR_HTTP_TIMEOUT, "nothing came or went for too long");
  }
  end(request);
  notify(request);
}

static weir_http_error connect_error(long number) {
  if (number == ECONNREFUSED || number == 0) return WEIR_HTTP_REFUSED;
  return number == ETIMEDOUT ? WEIR_HTTP_TIMEOUT : WEIR_HTTP_NETWORK;
}

static bool says(const weir_http_request *request, const char *text) {
  return strstr(request->said, text) != NULL;
}

/* libcurl has one code for a peer that will not and one that is gone; OpenSSL's words differ. */
static weir_http_error handshake_error(const weir_http_request *request, long number) {
  bool gone = number != 0 || says(request, "unexpected eof") || says(request, "SSL_ERROR_SYSCALL");
  return gone ? WEIR_HTTP_NETWORK : WEIR_HTTP_TLS;
}

/* What a proxy says to CONNECT; that of 5xx, 408 and 429 may be another thing a moment later. */
static bool denied(const weir_http_request *request) {
  long status = 0;
  curl_easy_getinfo(request->easy, CURLINFO_HTTP_CONNECTCODE, &status);
  return status >= 300 && status < 500 && status != 408 && status != 429;
}

static weir_http_error classify(const weir_http_request *request, CURLcode code, long number) {
  if (request->tries == 0 && denied(request)) return WEIR_HTTP_DENIED;
  switch (code) {
    case CURLE_URL_MALFORMAT: return WEIR_HTTP_BAD_URL;
    case CURLE_COULDNT_RESOLVE_HOST:
    case CURLE_COULDNT_RESOLVE_PROXY: return WEIR_HTTP_UNRESOLVED;
    case CURLE_COULDNT_CONNECT: return connect_error(number);
    case CURLE_OPERATION_TIMEDOUT: return WEIR_HTTP_TIMEOUT;
    case CURLE_SSL_CONNECT_ERROR: return handshake_error(request, number);
    case CURLE_SSL_CERTPROBLEM:
    case CURLE_SSL_CIPHER:
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CACERT_BADFILE:
    case CURLE_SSL_ISSUER_ERROR:
    case CURLE_SSL_ENGINE_INITFAILED: return WEIR_HTTP_TLS;
    case CURLE_UNSUPPORTED_PROTOCOL:
    case CURLE_WEIRD_SERVER_REPLY:
    case CURLE_BAD_CONTENT_ENCODING: return WEIR_HTTP_PROTOCOL;
    /* What libcurl says of a line of the head that is longer than it can take. */
    case CURLE_OUT_OF_MEMORY:
      return request->tries > 0 && !request->head_done ? WEIR_HTTP_TOO_LARGE : WEIR_HTTP_NOMEM;
    /* TLS 1.3 tells only after the handshake what it makes of the client's certificate. */
    case CURLE_RECV_ERROR:
    case CURLE_SEND_ERROR:
      return says(request, "alert certificate") || says(request, "alert bad certificate") ||
                     says(request, "alert unknown ca")
                 ? WEIR_HTTP_TLS
                 : WEIR_HTTP_NETWORK;
    default: return WEIR_HTTP_NETWORK;
  }
}

static void complete(weir_http_request *request, CURLcode code) {
  if (code != CURLE_OK) {
    long number = 0;
    curl_easy_getinfo(request->easy, CURLINFO_OS_ERRNO, &number);
    if (number != 0) request->system = uv_err_name(-(int)number);
    fail(request, classify(request, code, number),
         request->said[0] != '\0' ? request->said : curl_easy_strerror(code));
  } else if (!request->head_done) {
    fail(request, WEIR_HTTP_NETWORK, "the connection ended before the head of the answer did");
  }
  end(request);
  notify(request);
}

/* --- what libcurl calls -------------------------------------------------------------------------
 */

/* A connection is there and the request is about to be written to it: the first time, or again. */
/* NOLINTNEXTLINE(readability-non-const-parameter): the type is libcurl's */
static int on_connection(void *user, char *peer, char *own, int peer_port, int own_port) {
  (void)peer, (void)own, (void)peer_port, (void)own_port;
  weir_http_request *request = user;
  if (request->tries > 0 && !request->idempotent) {
    fail(request, WEIR_HTTP_NETWORK,
         "the connection broke before an answer came; the server may have had the request");
    return CURL_PREREQFUNC_ABORT;
  }
  request->tries++;
  request->active_at = uv_hrtime();
  if (arm(request, true)) return CURL_PREREQFUNC_OK;
  fail(request, WEIR_HTTP_NOMEM, "out of memory");
  return CURL_PREREQFUNC_ABORT;
}

static size_t trim(const char *line, size_t *len) {
  size_t start = 0;
  while (start < *len && (line[start] == ' ' || line[start] == '\t')) {
    start++;
  }
  while (*len > start && strchr(" \t\r\n", line[*len - 1]) != NULL) {
    (*len)--;
  }
  *len -= start;
  return start;
}

static bool new_field(weir_http_request *request) {
  if (request->field_count < request->field_cap) return true;
  size_t cap = request->field_cap == 0 ? 16 : request->field_cap * 2;
  field_at *field = realloc(request->field, cap * sizeof *field);
  if (field == NULL) return false;
  request->field = field;
  request->field_cap = cap;
  return true;
}

/* A folded line goes on with the value of the line before (RFC 9112, section 5.2). */
static bool unfold(weir_http_request *request, const char *line, size_t len) {
  if (request->field_count == 0) return true;
  size_t start = trim(line, &len);
  field_at *field = &request->field[request->field_count - 1];
  if (len == 0) return true;
  if (!bytes_add(&request->head, " ", 1) || !bytes_add(&request->head, line + start, len)) {
    return false;
  }
  field->value_len += (uint32_t)len + 1;
  return true;
}

static bool add_field(weir_http_request *request, const char *line, size_t len) {
  const char *colon = memchr(line, ':', len);
  if (line[0] == ' ' || line[0] == '\t') return unfold(request, line, len);
  if (colon == NULL) return true;
  if (!new_field(request)) return false;
  size_t name_len = (size_t)(colon - line);
  size_t value_len = len - name_len - 1;
  size_t value = trim(colon + 1, &value_len);
  trim(line, &name_len);
  field_at *field = &request->field[request->field_count];
  field->name = (uint32_t)request->head.len;
  field->name_len = (uint32_t)name_len;
  field->value = field->name + field->name_len;
  field->value_len = (uint32_t)value_len;
  if (!bytes_add(&request->head, line, name_len) ||
      !bytes_add(&request->head, colon + 1 + value, value_len)) {
    return false;
  }
  request->field_count++;
  return true;
}

/* "HTTP/1.1 200 OK", "HTTP/2 200": the fields before it were those of an informational answer. */
static void begin_head(weir_http_request *request, const char *line, size_t len) {
  const char *space = memchr(line, ' ', len);
  request->status = space != NULL ? (int)strtol(space, NULL, 10) : 0;
  request->field_count = 0;
  request->head.len = 0;
  request->in_head = true;
}

static void end_head(weir_http_request *request) {
  request->in_head = false;
  if (request->status < 200 && request->status != 101) return;
  request->head_done = true;
  notify(request);
}

static size_t on_head(char *line, size_t size, size_t count, void *user) {
  weir_http_request *request = user;
  const weir_http_options *limits = &request->http->options;
  size_t len = size * count;
  request->loop->fed = true;
  alive(request);
  request->head_bytes += len;
  if (request->head_bytes > limits->max_head_bytes) {
    fail(request, WEIR_HTTP_TOO_LARGE, "the head of the answer is larger than allowed");
    return CURL_WRITEFUNC_ERROR;
  }
  if (request->head_done) return len; /* a trailer */
  if (!request->in_head && len >= 5 && memcmp(line, "HTTP/", 5) == 0) {
    begin_head(request, line, len);
  } else if (len == 0 || line[0] == '\r' || line[0] == '\n') {
    end_head(request);
  } else if (request->field_count == limits->max_head_fields) {
    fail(request, WEIR_HTTP_TOO_LARGE, "the head of the answer has more fields than allowed");
    return CURL_WRITEFUNC_ERROR;
  } else if (!add_field(request, line, len)) {
    fail(request, WEIR_HTTP_NOMEM, "out of memory");
    return CURL_WRITEFUNC_ERROR;
  }
  return len;
}

static size_t on_data(char *data, size_t size, size_t count, void *user) {
  weir_http_request *request = user;
  size_t len = size * count;
  if (request->dropped) return len;
  request->loop->fed = true;
  alive(request);
  if (request->in.len >= WEIR_HTTP_BUFFER) {
    request->in_paused = true;
    return CURL_WRITEFUNC_PAUSE;
  }
  if (!bytes_add(&request->in, data, len)) {
    fail(request, WEIR_HTTP_NOMEM, "out of memory");
    return CURL_WRITEFUNC_ERROR;
  }
  notify(request);
  return len;
}

static size_t on_upload(char *to, size_t size, size_t count, void *user) {
  weir_http_request *request = user;
  bytes *out = &request->out;
  size_t len = size * count < out->len ? size * count : out->len;
  if (len == 0) {
    if (request->finished) return 0;
    request->out_paused = true;
    return CURL_READFUNC_PAUSE;
  }
  memcpy(to, out->data + out->start, len);
  out->start += len;
  out->len -= len;
  if (out->len == 0) out->start = 0;
  alive(request);
  notify(request);
  return len;
}

/* A body that was streamed is gone: it cannot be sent again. */
static int on_seek(void *user, curl_off_t offset, int origin) {
  (void)user, (void)offset, (void)origin;
  return CURL_SEEKFUNC_FAIL;
}

/* --- sockets and the timer ----------------------------------------------------------------------
 */

static void work(weir_http *http);

static void collect(weir_http *http) {
  int left;
  for (CURLMsg *message; (message = curl_multi_info_read(http->multi, &left)) != NULL;) {
    if (message->msg != CURLMSG_DONE) continue;
    CURLcode code = message->data.result;
    weir_http_request *request = NULL;
    curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, (char **)&request);
    http->loop->fed = true;
    complete(request, code);
  }
}

static void on_ready(uv_poll_t *poll, int status, int events) {
  weir_http *http = poll->data;
  uv_os_fd_t fd;
  if (uv_fileno((uv_handle_t *)poll, &fd) != 0) return;
  int what =
      (events & UV_READABLE ? CURL_CSELECT_IN : 0) | (events & UV_WRITABLE ? CURL_CSELECT_OUT : 0);
  /* An error of the socket. There may be an answer before it, so libcurl has to run into it. */
  if (status < 0) what = CURL_CSELECT_IN | CURL_CSELECT_OUT;
  int running;
  weir_sigpipe hold;
  weir_sigpipe_hold(&hold);
  curl_multi_socket_action(http->multi, fd, what, &running);
  weir_sigpipe_release(&hold);
  /* libuv has stopped watching it; libcurl, if it still uses it, counts on that. */
  if (status < 0 && !uv_is_closing((uv_handle_t *)poll) && !uv_is_active((uv_handle_t *)poll)) {
    uv_poll_start(poll, UV_READABLE | UV_WRITABLE, on_ready);
  }
  collect(http);
}

static void on_poll_closed(uv_handle_t *handle) { free(handle); }

static uv_poll_t *watch(weir_http *http, curl_socket_t fd) {
  uv_poll_t *poll = malloc(sizeof *poll);
  if (poll == NULL) return NULL;
  if (uv_poll_init_socket(&http->loop->uv, poll, fd) != 0) {
    free(poll);
    return NULL;
  }
  poll->data = http;
  curl_multi_assign(http->multi, fd, poll);
  return poll;
}

static int on_socket(CURL *easy, curl_socket_t fd, int what, void *user, void *socket_user) {
  (void)easy;
  weir_http *http = user;
  uv_poll_t *poll = socket_user;
  http->loop->touched = true;
  if (what == CURL_POLL_REMOVE) {
    if (poll != NULL) uv_close((uv_handle_t *)poll, on_poll_closed);
    return 0;
  }
  if (poll == NULL) poll = watch(http, fd);
  if (poll == NULL) return -1;
  int events = (what & CURL_POLL_IN ? UV_READABLE : 0) | (what & CURL_POLL_OUT ? UV_WRITABLE : 0);
  return uv_poll_start(poll, events, on_ready) == 0 ? 0 : -1;
}

static int on_timer(CURLM *multi, long ms, void *user) {
  (void)multi;
  weir_http *http = user;
  if (http->timer != NO_TIMER) weir_timers_cancel(&http->loop->timers, http->timer, NULL);
  http->timer = NO_TIMER;
  http->due = ms == 0;
  if (ms == 0) {
    weir_loop_soon(http->loop, &http->work);
  } else if (ms > 0) {
    uint64_t due = uv_hrtime() + (uint64_t)ms * WEIR_MILLISECOND;
    uint64_t token = (uint64_t)(uintptr_t)&http->alarm;
    if (weir_timers_add(&http->loop->timers, due, token, &http->timer) != WEIR_OK) return -1;
  }
  return 0;
}

static void on_due(weir_alarm *alarm, uint64_t now) {
  (void)now;
  weir_http *http = weir_list_of(alarm, weir_http, alarm);
  http->timer = NO_TIMER;
  http->due = true;
  work(http);
}

static void on_chore(weir_chore *chore) { work(weir_list_of(chore, weir_http, work)); }

static void resume(weir_http *http) {
  for (weir_link *link; (link = weir_list_first(&http->resuming)) != NULL;) {
    weir_http_request *request = weir_list_of(link, weir_http_request, resuming);
    weir_list_remove(link);
    if (request->in.len < WEIR_HTTP_BUFFER) request->in_paused = false;
    if (request->out.len > 0 || request->finished) request->out_paused = false;
    request->active_at = uv_hrtime();
    (void)arm(request, false); /* if not, the next bytes try again */
    int pauses =
        (request->in_paused ? CURLPAUSE_RECV : 0) | (request->out_paused ? CURLPAUSE_SEND : 0);
    /* What it hands over at once can run into a failure that nothing else reports. */
    CURLcode code = curl_easy_pause(request->easy, pauses);
    if (code != CURLE_OK) complete(request, code);
  }
}

/* What is to be done now, without waiting for a socket. */
static void work(weir_http *http) {
  weir_sigpipe hold;
  weir_sigpipe_hold(&hold);
  resume(http);
  for (int i = 0; http->due && i < WORK_ROUNDS; i++) {
    int running;
    http->due = false;
    curl_multi_socket_action(http->multi, CURL_SOCKET_TIMEOUT, 0, &running);
  }
  weir_sigpipe_release(&hold);
  weir_list_remove(&http->work.link);
  if (http->due) weir_loop_soon(http->loop, &http->work);
  collect(http);
}

/* --- the client ---------------------------------------------------------------------------------
 */

static void release_client(weir_io *io) { weir_http_free(weir_list_of(io, weir_http, io)); }

static bool set_up_multi(weir_http *http) {
  http->multi = curl_multi_init();
  if (http->multi == NULL) return false;
  long most = (long)http->options.max_connections;
  curl_multi_setopt(http->multi, CURLMOPT_SOCKETFUNCTION, on_socket);
  curl_multi_setopt(http->multi, CURLMOPT_SOCKETDATA, http);
  curl_multi_setopt(http->multi, CURLMOPT_TIMERFUNCTION, on_timer);
  curl_multi_setopt(http->multi, CURLMOPT_TIMERDATA, http);
  curl_multi_setopt(http->multi, CURLMOPT_MAXCONNECTS, most);
  curl_multi_setopt(http->multi, CURLMOPT_MAX_TOTAL_CONNECTIONS, most);
  return true;
}

static bool copy_options(weir_http *http, const weir_http_options *options) {
  if (!copy_string(&http->ca, options->ca) || !copy_string(&http->cert, options->cert) ||
      !copy_string(&http->key, options->key) || !copy_string(&http->proxy, options->proxy)) {
    return false;
  }
  http->options = *options;
  http->options.ca = http->ca;
  http->options.cert = http->cert;
  http->options.key = http->key;
  http->options.proxy = http->proxy;
  return true;
}

static void free_strings(weir_http *http) {
  free(http->ca);
  free(http->cert);
  free(http->key);
  free(http->proxy);
}

weir_http *weir_http_new(weir_loop *loop, const weir_http_options *options) {
  if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK) return NULL;
  weir_http *http = calloc(1, sizeof *http);
  if (http == NULL) return NULL;
  http->loop = loop;
  http->alarm.due = on_due;
  http->work.run = on_chore;
  weir_list_init(&http->work.link);
  weir_list_init(&http->requests);
  weir_list_init(&http->resuming);
  if (!copy_options(http, options) || !set_up_multi(http)) {
    free_strings(http);
    free(http);
    return NULL;
  }
  weir_loop_own(loop, &http->io, release_client);
  return http;
}

void weir_http_free(weir_http *http) {
  weir_list_remove(&http->io.link);
  for (weir_link *link; (link = weir_list_first(&http->requests)) != NULL;) {
    weir_http_request *request = weir_list_of(link, weir_http_request, link);
    fail(request, WEIR_HTTP_CANCELLED, "the client was closed");
    end(request);
  }
  while (http->spares > 0) {
    curl_easy_cleanup(http->spare[--http->spares]);
  }
  weir_sigpipe hold;
  weir_sigpipe_hold(&hold);
  curl_multi_cleanup(http->multi);
  weir_sigpipe_release(&hold);
  if (http->timer != NO_TIMER) weir_timers_cancel(&http->loop->timers, http->timer, NULL);
  weir_list_remove(&http->work.link);
  free_strings(http);
  free(http);
}

size_t weir_http_active(const weir_http *http) { return http->active; }

/* --- requests -----------------------------------------------------------------------------------
 */

static void set_pem(CURL *easy, CURLoption file, CURLoption blob, const char *text) {
  if (text == NULL) return;
  if (strstr(text, "-----BEGIN") == NULL) {
    curl_easy_setopt(easy, file, text);
    return;
  }
  struct curl_blob pem = {.data = (void *)(uintptr_t)text, .len = strlen(text)};
  pem.flags = CURL_BLOB_NOCOPY; /* it is the client's, which outlives the handle */
  curl_easy_setopt(easy, blob, &pem);
}

static void set_tls(CURL *easy, const weir_http_options *options) {
  curl_easy_setopt(easy, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
  curl_easy_setopt(easy, CURLOPT_SSL_VERIFYPEER, options->insecure ? 0L : 1L);
  curl_easy_setopt(easy, CURLOPT_SSL_VERIFYHOST, options->insecure ? 0L : 2L);
  set_pem(easy, CURLOPT_CAINFO, CURLOPT_CAINFO_BLOB, options->ca);
  set_pem(easy, CURLOPT_SSLCERT, CURLOPT_SSLCERT_BLOB, options->cert);
  set_pem(easy, CURLOPT_SSLKEY, CURLOPT_SSLKEY_BLOB, options->key);
}

static long milliseconds(uint64_t span) {
  const uint64_t most = 1000u * 1000u * 1000u;
  uint64_t ms = span / WEIR_MILLISECOND;
  return ms == 0 ? 1 : (long)(ms < most ? ms : most);
}

static void set_connection(CURL *easy, const weir_http_options *options) {
  curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
  curl_easy_setopt(easy, CURLOPT_QUICK_EXIT, 1L); /* or giving up waits for the resolver */
  curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
  curl_easy_setopt(easy, CURLOPT_PATH_AS_IS, 1L);
  curl_easy_setopt(easy, CURLOPT_BUFFERSIZE, READ_SIZE);
  curl_easy_setopt(easy, CURLOPT_TCP_KEEPALIVE, 1L);
  curl_easy_setopt(easy, CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
  curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, milliseconds(options->connect_timeout));
  if (options->proxy != NULL) curl_easy_setopt(easy, CURLOPT_PROXY, options->proxy);
  long version = options->http2 ? CURL_HTTP_VERSION_2TLS : CURL_HTTP_VERSION_1_1;
  curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, version);
}

static void set_callbacks(weir_http_request *request, bool streamed) {
  CURL *easy = request->easy;
  curl_easy_setopt(easy, CURLOPT_PRIVATE, request);
  curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, request->said);
  curl_easy_setopt(easy, CURLOPT_PREREQFUNCTION, on_connection);
  curl_easy_setopt(easy, CURLOPT_PREREQDATA, request);
  curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, on_head);
  curl_easy_setopt(easy, CURLOPT_HEADERDATA, request);
  curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_data);
  curl_easy_setopt(easy, CURLOPT_WRITEDATA, request);
  if (!streamed) return;
  curl_easy_setopt(easy, CURLOPT_READFUNCTION, on_upload);
  curl_easy_setopt(easy, CURLOPT_READDATA, request);
  curl_easy_setopt(easy, CURLOPT_SEEKFUNCTION, on_seek);
}

static bool takes_body(const char *method) {
  return strcmp(method, "POST") == 0 || strcmp(method, "PUT") == 0 || strcmp(method, "PATCH") == 0;
}

static void set_method(CURL *easy, const weir_http_call *call) {
  if (strcmp(call->method, "HEAD") == 0 && call->body == NULL && !call->streamed) {
    curl_easy_setopt(easy, CURLOPT_NOBODY, 1L);
    return;
  }
  if (call->streamed) {
    curl_easy_setopt(easy, CURLOPT_UPLOAD, 1L);
  } else if (call->body != NULL || takes_body(call->method)) {
    curl_easy_setopt(easy, CURLOPT_POST, 1L);
    curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)call->body_len);
    curl_easy_setopt(easy, CURLOPT_POSTFIELDS, call->body != NULL ? call->body : "");
  }
  curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, call->method);
}

static bool add_line(weir_http_request *request, const char *line) {
  struct curl_slist *list = curl_slist_append(request->fields, line);
  if (list == NULL) return false;
  request->fields = list;
  return true;
}

static bool set_fields(weir_http_request *request, const weir_http_call *call) {
  /* A name alone takes away what libcurl would add by itself. */
  bool typed = false;
  for (size_t i = 0; i < call->field_count; i++) {
    typed = typed || curl_strnequal(call->fields[i], "content-type:", 13) != 0 ||
            curl_strnequal(call->fields[i], "content-type;", 13) != 0;
    if (!add_line(request, call->fields[i])) return false;
  }
  if (!add_line(request, "Expect:") || (!typed && !add_line(request, "Content-Type:"))) {
    return false;
  }
  curl_easy_setopt(request->easy, CURLOPT_HTTPHEADER, request->fields);
  return true;
}

static bool is_good_url(const char *text) {
  CURLU *url = curl_url();
  char *scheme = NULL;
  bool good = url != NULL && curl_url_set(url, CURLUPART_URL, text, 0) == CURLUE_OK &&
              curl_url_get(url, CURLUPART_SCHEME, &scheme, 0) == CURLUE_OK &&
              (strcmp(scheme, "http") == 0 || strcmp(scheme, "https") == 0);
  curl_free(scheme);
  curl_url_cleanup(url);
  return good;
}

static bool set_up(weir_http_request *request, const weir_http_call *call) {
  const weir_http_options *options = &request->http->options;
  set_connection(request->easy, options);
  set_tls(request->easy, options);
  /* Requests that could share a connection wait until TLS has told whether it lets them. Without
   * TLS only the first answer would tell, and that may take for ever. */
  bool secure = curl_strnequal(call->url, "https:", 6) != 0;
  curl_easy_setopt(request->easy, CURLOPT_PIPEWAIT, options->http2 && secure ? 1L : 0L);
  set_callbacks(request, call->streamed);
  set_method(request->easy, call);
  if (call->decompress) {
    curl_easy_setopt(request->easy, CURLOPT_ACCEPT_ENCODING, "gzip");
    curl_easy_setopt(request->easy, CURLOPT_BUFFERSIZE, PACKED_READ_SIZE);
  }
  return set_fields(request, call) &&
         curl_easy_setopt(request->easy, CURLOPT_URL, call->url) == CURLE_OK;
}

static void run_notice(weir_chore *chore) {
  weir_http_request *request = weir_list_of(chore, weir_http_request, notice);
  request->changed(request, request->user);
}

static void release_request(weir_io *io) {
  weir_http_request_free(weir_list_of(io, weir_http_request, io));
}

static weir_http_request *make(weir_http *http, const weir_http_call *call) {
  weir_http_request *request = calloc(1, sizeof *request);
  if (request == NULL) return NULL;
  uint64_t now = uv_hrtime();
  request->loop = http->loop;
  request->http = http;
  request->alarm.due = on_timeout;
  request->notice.run = run_notice;
  weir_list_init(&request->link);
  weir_list_init(&request->resuming);
  weir_list_init(&request->notice.link);
  request->whole_at = after(now, call->timeout);
  request->head_at = after(now, call->head_timeout);
  request->idle = call->idle_timeout;
  request->changed = call->changed;
  request->user = call->user;
  request->streamed = call->streamed;
  request->idempotent = call->idempotent && !call->streamed;
  request->easy = http->spares > 0 ? http->spare[--http->spares] : curl_easy_init();
  return request;
}

static void discard(weir_http_request *request) {
  if (request->easy != NULL) curl_easy_cleanup(request->easy);
  curl_slist_free_all(request->fields);
  free(request);
}

weir_http_request *weir_http_request_new(weir_http *http, const weir_http_call *call,
                                         weir_http_error *error) {
  *error = WEIR_HTTP_BAD_URL;
  if (!is_good_url(call->url)) return NULL;
  *error = WEIR_HTTP_NOMEM;
  weir_http_request *request = make(http, call);
  if (request == NULL) return NULL;
  if (request->easy == NULL || !set_up(request, call) ||
      curl_multi_add_handle(http->multi, request->easy) != CURLM_OK) {
    discard(request);
    return NULL;
  }
  weir_list_append(&http->requests, &request->link);
  weir_loop_own(http->loop, &request->io, release_request);
  http->active++;
  http->loop->pending++;
  if (arm(request, true)) return request;
  weir_http_request_free(request);
  return NULL;
}

void weir_http_request_free(weir_http_request *request) {
  end(request);
  weir_list_remove(&request->io.link);
  weir_list_remove(&request->notice.link);
  bytes_free(&request->head);
  bytes_free(&request->in);
  free(request->field);
  free(request);
}

void weir_http_cancel(weir_http_request *request) {
  if (request->ended) return;
  fail(request, WEIR_HTTP_CANCELLED, "the request was cancelled");
  end(request);
  notify(request);
}

int weir_http_status(const weir_http_request *request) {
  return request->head_done ? request->status : 0;
}

size_t weir_http_field_count(const weir_http_request *request) {
  return request->head_done ? request->field_count : 0;
}

weir_http_field weir_http_field_at(const weir_http_request *request, size_t index) {
  const field_at *at = &request->field[index];
  const char *text = (const char *)request->head.data;
  return (weir_http_field){.name = text + at->name,
                           .value = text + at->value,
                           .name_len = at->name_len,
                           .value_len = at->value_len};
}

static void go_on(weir_http_request *request) {
  if (request->http == NULL || weir_list_linked(&request->resuming)) return;
  weir_list_append(&request->http->resuming, &request->resuming);
  weir_loop_soon(request->loop, &request->http->work);
}

const void *weir_http_peek(const weir_http_request *request, size_t *len) {
  *len = request->in.len;
  return request->in.len > 0 ? request->in.data + request->in.start : NULL;
}

void weir_http_take(weir_http_request *request) {
  request->in.start = 0;
  request->in.len = 0;
  if (request->ended) bytes_free(&request->in);
  if (request->in_paused) go_on(request);
}

size_t weir_http_room(const weir_http_request *request) {
  if (request->ended || request->finished || !request->streamed) return 0;
  return request->out.len < WEIR_HTTP_UPLOAD ? WEIR_HTTP_UPLOAD - request->out.len : 0;
}

size_t weir_http_write(weir_http_request *request, const void *data, size_t len) {
  size_t room = weir_http_room(request);
  if (len > room) len = room;
  if (!bytes_add(&request->out, data, len)) {
    fail(request, WEIR_HTTP_NOMEM, "out of memory");
    end(request);
    notify(request);
    return 0;
  }
  if (len > 0 && request->out_paused) go_on(request);
  return len;
}

void weir_http_finish(weir_http_request *request) {
  request->finished = true;
  if (request->out_paused) go_on(request);
}

bool weir_http_ended(const weir_http_request *request) { return request->ended; }

weir_http_error weir_http_failure(const weir_http_request *request) { return request->error; }

const char *weir_http_message(const weir_http_request *request) { return request->message; }

const char *weir_http_system(const weir_http_request *request) { return request->system; }

bool weir_http_sent(const weir_http_request *request) { return request->sent; }

const char *weir_http_error_name(weir_http_error error) {
  static const char *const names[] = {
      [WEIR_HTTP_OK] = "ok",
      [WEIR_HTTP_BAD_URL] = "bad_url",
      [WEIR_HTTP_CANCELLED] = "cancelled",
      [WEIR_HTTP_DENIED] = "denied",
      [WEIR_HTTP_NETWORK] = "network",
      [WEIR_HTTP_NOMEM] = "nomem",
      [WEIR_HTTP_PROTOCOL] = "protocol",
      [WEIR_HTTP_REFUSED] = "refused",
      [WEIR_HTTP_TIMEOUT] = "timeout",
      [WEIR_HTTP_TLS] = "tls",
      [WEIR_HTTP_TOO_LARGE] = "too_large",
      [WEIR_HTTP_UNRESOLVED] = "unresolved",
  };
  return names[error];
}
