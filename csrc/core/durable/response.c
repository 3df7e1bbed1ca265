#include "core/durable/response.h"

#include <string.h>

#define NUMBER_MAX ((UINT64_C(1) << 53) - 1) /* of epochs and sequences, as the protocol has it */

void weir_durable_response_init(weir_durable_response *response, int status) {
  memset(response, 0, sizeof *response);
  response->status = status;
  response->producer_epoch = response->producer_seq = UINT64_MAX;
  response->expected_seq = response->received_seq = UINT64_MAX;
  response->retry_after = UINT64_MAX;
}

/* --- headers ---------------------------------------------------------------------------------- */

typedef struct text_view {
  const char *ptr;
  size_t len;
} text_view;

static char lower(char c) { return c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c; }

/* `word` is in lower case. */
static bool is(text_view text, const char *word) {
  if (strlen(word) != text.len) return false;
  for (size_t i = 0; i < text.len; i++) {
    if (lower(text.ptr[i]) != word[i]) return false;
  }
  return true;
}

static bool is_blank(char c) { return c == ' ' || c == '\t' || c == '\r' || c == '\n'; }

static text_view trimmed(const char *ptr, size_t len) {
  while (len > 0 && is_blank(ptr[len - 1]))
    len--;
  while (len > 0 && is_blank(*ptr)) {
    ptr++;
    len--;
  }
  return (text_view){ptr, len};
}

static bool copy_text(weir_durable_text *out, text_view value) {
  out->len = 0;
  bool good = value.len <= sizeof out->bytes;
  for (size_t i = 0; good && i < value.len; i++) {
    const unsigned char c = (unsigned char)value.ptr[i];
    good = c >= 0x20 && c != 0x7f;
  }
  if (!good) return false;
  if (value.len > 0) memcpy(out->bytes, value.ptr, value.len);
  out->len = (uint16_t)value.len;
  return true;
}

static void take_text(weir_durable_response *response, weir_durable_text *out, text_view value) {
  if (!copy_text(out, value)) response->unusable = true;
}

/* Digits only. False for anything else; a number above `max` becomes `beyond`. */
static bool parse_number(text_view text, uint64_t max, uint64_t beyond, uint64_t *out) {
  uint64_t number = 0;
  if (text.len == 0) return false;
  for (size_t i = 0; i < text.len; i++) {
    if (text.ptr[i] < '0' || text.ptr[i] > '9') return false;
    const uint64_t digit = (uint64_t)(text.ptr[i] - '0');
    number = number > (max - digit) / 10 ? max + 1 : number * 10 + digit;
  }
  *out = number > max ? beyond : number;
  return true;
}

static uint64_t number_of(text_view text) {
  uint64_t number;
  return parse_number(text, NUMBER_MAX, UINT64_MAX, &number) ? number : UINT64_MAX;
}

static void take_retry_after(weir_durable_response *response, text_view value) {
  response->retry_date.len = 0;
  response->retry_after = UINT64_MAX;
  if (parse_number(value, NUMBER_MAX, NUMBER_MAX, &response->retry_after)) return;
  copy_text(&response->retry_date, value); /* what does not fit is no date */
}

void weir_durable_response_header(weir_durable_response *response, const char *name,
                                  size_t name_len, const char *value, size_t value_len) {
  const text_view key = {name, name_len};
  const text_view text = trimmed(value, value_len);
  if (is(key, "stream-next-offset")) take_text(response, &response->next_offset, text);
  if (is(key, "stream-cursor")) take_text(response, &response->cursor, text);
  if (is(key, "etag")) take_text(response, &response->etag, text);
  if (is(key, "content-type")) take_text(response, &response->content_type, text);
  if (is(key, "stream-up-to-date")) response->up_to_date = is(text, "true");
  if (is(key, "stream-closed")) response->closed = is(text, "true");
  if (is(key, "stream-sse-data-encoding")) response->base64 = is(text, "base64");
  if (is(key, "producer-epoch")) response->producer_epoch = number_of(text);
  if (is(key, "producer-seq")) response->producer_seq = number_of(text);
  if (is(key, "producer-expected-seq")) response->expected_seq = number_of(text);
  if (is(key, "producer-received-seq")) response->received_seq = number_of(text);
  if (is(key, "retry-after")) take_retry_after(response, text);
}

/* --- dates ------------------------------------------------------------------------------------ */

static bool two_digits(const char *text, uint64_t max, uint64_t *out) {
  return parse_number((text_view){text, 2}, 99, 99, out) && *out <= max;
}

static uint64_t month_of(const char *text) {
  static const char NAMES[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
  for (uint64_t month = 1; month <= 12; month++) {
    if (memcmp(NAMES + 3 * (month - 1), text, 3) == 0) return month;
  }
  return 0;
}

/* Days from 1970-01-01, for years from 1970 on; counts years from March, so that the leap day is
 * the last of its year. */
static uint64_t days_of(uint64_t year, uint64_t month, uint64_t day) {
  const uint64_t y = month > 2 ? year : year - 1;
  const uint64_t since_march = month > 2 ? month - 3 : month + 9;
  const uint64_t leaps = y / 4 - y / 100 + y / 400;
  return y * 365 + leaps + (since_march * 153 + 2) / 5 + day - 1 - 719468;
}

/* "Sun, 06 Nov 1994 08:49:37 GMT" */
static bool parse_date(const weir_durable_text *text, uint64_t *out) {
  const char *s = text->bytes;
  uint64_t day, year, hour, minute, second;
  if (text->len != 29 || memcmp(s + 3, ", ", 2) != 0 || memcmp(s + 25, " GMT", 4) != 0) {
    return false;
  }
  if (s[7] != ' ' || s[11] != ' ' || s[16] != ' ' || s[19] != ':' || s[22] != ':') return false;
  const uint64_t month = month_of(s + 8);
  if (month == 0 || !two_digits(s + 5, 31, &day) || day == 0 ||
      !parse_number((text_view){s + 12, 4}, 9999, 9999, &year) || year < 1970 ||
      !two_digits(s + 17, 23, &hour) || !two_digits(s + 20, 59, &minute) ||
      !two_digits(s + 23, 60, &second)) {
    return false;
  }
  *out = ((days_of(year, month, day) * 24 + hour) * 60 + minute) * 60 + second;
  return true;
}

void weir_durable_response_resolve_date(weir_durable_response *response, uint64_t unix_now) {
  uint64_t at;
  if (!parse_date(&response->retry_date, &at)) return;
  response->retry_after = at > unix_now ? at - unix_now : 0;
}

/* --- what it means ---------------------------------------------------------------------------- */

static weir_durable_transport real_transport(weir_durable_transport transport,
                                             const weir_durable_response *response) {
  const bool empty = response == NULL || response->status == 0;
  return transport == WEIR_DURABLE_ANSWERED && empty ? WEIR_DURABLE_LOST : transport;
}

static bool succeeded(weir_durable_kind kind, int status) {
  switch (kind) {
    case WEIR_DURABLE_READ: return status == 200 || status == 204 || status == 304;
    case WEIR_DURABLE_PRODUCE: /* any other success is not the protocol's, and promises nothing */
      return status == 200 || status == 204;
    default: return status >= 200 && status < 300;
  }
}

static bool is_unusable(weir_durable_kind kind, const weir_durable_response *response) {
  return response->unusable && (kind == WEIR_DURABLE_READ || kind == WEIR_DURABLE_HEAD);
}

bool weir_durable_ambiguous(weir_durable_transport transport,
                            const weir_durable_response *response) {
  switch (real_transport(transport, response)) {
    case WEIR_DURABLE_NOT_SENT: return false;
    case WEIR_DURABLE_ANSWERED: return response->status >= 500 && response->status != 503;
    default: return true;
  }
}

weir_durable_outcome weir_durable_verdict(weir_durable_kind kind, weir_durable_transport transport,
                                          const weir_durable_response *response) {
  transport = real_transport(transport, response);
  if (kind == WEIR_DURABLE_APPEND && weir_durable_ambiguous(transport, response)) {
    return WEIR_DURABLE_UNKNOWN;
  }
  if (transport != WEIR_DURABLE_ANSWERED) return WEIR_DURABLE_RETRY;
  if (response->status == 429 || response->status >= 500) return WEIR_DURABLE_RETRY;
  if (!succeeded(kind, response->status) || is_unusable(kind, response)) {
    return WEIR_DURABLE_FAILED;
  }
  return WEIR_DURABLE_OK;
}

static const char *conflict_code(weir_durable_kind kind, const weir_durable_response *response) {
  if (kind == WEIR_DURABLE_CREATE) return "already_exists";
  if (response->closed) return "stream_closed";
  if (kind == WEIR_DURABLE_APPEND_SEQ) return "sequence_conflict";
  const bool gap = kind == WEIR_DURABLE_PRODUCE && response->expected_seq != UINT64_MAX;
  return gap ? "sequence_conflict" : "conflict";
}

static const char *status_code(weir_durable_kind kind, const weir_durable_response *response) {
  const bool read = kind == WEIR_DURABLE_READ;
  switch (response->status) {
    case 400: return read ? "invalid_offset" : "parse_error";
    case 401:
    case 407: return "unauthorized"; /* 407: the proxy's */
    case 403:
      return kind == WEIR_DURABLE_PRODUCE && response->producer_epoch != UINT64_MAX ? "stale_epoch"
                                                                                    : "forbidden";
    case 404: return "not_found";
    case 408: return "timeout";
    case 409: return conflict_code(kind, response);
    case 410: return "gone";
    case 413:
    case 414:
    case 431: return "too_large";
    case 416: return read ? "invalid_offset" : "server_error";
    case 429: return "rate_limited";
    default: return "server_error";
  }
}

const char *weir_durable_code(weir_durable_kind kind, weir_durable_transport transport,
                              const weir_durable_response *response) {
  transport = real_transport(transport, response);
  if (transport == WEIR_DURABLE_TIMED_OUT) return "timeout";
  if (transport != WEIR_DURABLE_ANSWERED) return "network";
  if (!succeeded(kind, response->status)) return status_code(kind, response);
  return is_unusable(kind, response) ? "too_large" : NULL;
}
