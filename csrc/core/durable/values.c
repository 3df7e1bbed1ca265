#include "core/durable/values.h"

#include <stdbool.h>
#include <string.h>

/* What a head says of what follows it. */
enum kind {
  INVALID,
  SCALAR, /* nothing follows */
  BODY,   /* `number` bytes */
  EXT,    /* a byte for the type, and `number` bytes */
  ITEMS,  /* `number` values */
  PAIRS,  /* `number` times two values */
  OPEN,   /* values until a break */
  BREAK,
  TAG /* the value that it is about */
};

typedef struct head {
  uint8_t kind;
  uint8_t bytes; /* of the number, which follows; 0: it is here */
  uint64_t number;
} head;

static head msgpack_head(uint8_t first) {
  /* From 0xc0 to 0xdf. */
  static const head HEADS[32] = {
      {SCALAR, 0, 0}, {INVALID, 0, 0}, {SCALAR, 0, 0}, {SCALAR, 0, 0}, /* nil, -, false, true */
      {BODY, 1, 0},   {BODY, 2, 0},    {BODY, 4, 0},                   /* bin */
      {EXT, 1, 0},    {EXT, 2, 0},     {EXT, 4, 0},                    /* ext */
      {SCALAR, 4, 0}, {SCALAR, 8, 0},                                  /* float */
      {SCALAR, 1, 0}, {SCALAR, 2, 0},  {SCALAR, 4, 0}, {SCALAR, 8, 0}, /* uint */
      {SCALAR, 1, 0}, {SCALAR, 2, 0},  {SCALAR, 4, 0}, {SCALAR, 8, 0}, /* int */
      {EXT, 0, 1},    {EXT, 0, 2},     {EXT, 0, 4},    {EXT, 0, 8},    /* fixext */
      {EXT, 0, 16},                                                    /* fixext 16 */
      {BODY, 1, 0},   {BODY, 2, 0},    {BODY, 4, 0},                   /* str */
      {ITEMS, 2, 0},  {ITEMS, 4, 0},                                   /* array */
      {PAIRS, 2, 0},  {PAIRS, 4, 0},                                   /* map */
  };
  if (first <= 0x7f || first >= 0xe0) return (head){SCALAR, 0, 0};
  if (first <= 0x8f) return (head){PAIRS, 0, first & 15u};
  if (first <= 0x9f) return (head){ITEMS, 0, first & 15u};
  if (first <= 0xbf) return (head){BODY, 0, first & 31u};
  return HEADS[first - 0xc0];
}

static head cbor_head(uint8_t first) {
  static const uint8_t KINDS[8] = {SCALAR, SCALAR, BODY, BODY, ITEMS, PAIRS, TAG, SCALAR};
  const uint8_t major = first >> 5, info = first & 31;
  if (info < 24) return (head){KINDS[major], 0, info};
  if (info < 28) return (head){KINDS[major], (uint8_t)(1 << (info - 24)), 0};
  if (info < 31) return (head){INVALID, 0, 0};
  if (major == 7) return (head){BREAK, 0, 0};
  return (head){major >= 2 && major <= 5 ? OPEN : INVALID, 0, 0};
}

static weir_status fail(weir_values *v, weir_status status, const char *error) {
  v->failed = status;
  v->error = error;
  return status;
}

static weir_status too_long(weir_values *v) {
  return fail(v, WEIR_E_LIMIT, "the value is longer than allowed");
}

/* A value inside of others is over. OK: so are all. */
static weir_status value_over(weir_values *v) {
  while (v->depth > 0) {
    uint64_t *left = &v->left[v->depth - 1];
    if (*left == WEIR_VALUES_OPEN || --*left > 0) return WEIR_E_AGAIN;
    v->depth--;
  }
  v->size = 0;
  return WEIR_OK;
}

static weir_status open_values(weir_values *v, uint64_t count) {
  if (v->depth == WEIR_VALUES_DEPTH) {
    return fail(v, WEIR_E_LIMIT, "arrays and maps nest deeper than allowed");
  }
  v->left[v->depth++] = count;
  return WEIR_E_AGAIN;
}

/* `count` times `each` values, of which each takes a byte at least. */
static weir_status open_count(weir_values *v, uint64_t count, uint64_t each) {
  if (count == 0) return value_over(v);
  if (count > (v->max_value - v->size) / each) return too_long(v);
  return open_values(v, count * each);
}

static weir_status skip_bytes(weir_values *v, uint64_t count) {
  if (count > v->max_value - v->size) return too_long(v);
  v->skip = count;
  return count == 0 ? value_over(v) : WEIR_E_AGAIN;
}

static weir_status close_open(weir_values *v) {
  if (v->depth == 0 || v->left[v->depth - 1] != WEIR_VALUES_OPEN) {
    return fail(v, WEIR_E_PROTOCOL, "a break where nothing can end");
  }
  v->depth--;
  return value_over(v);
}

/* The head is complete. */
static weir_status act(weir_values *v) {
  switch (v->kind) {
    case SCALAR: return value_over(v);
    case BODY: return skip_bytes(v, v->number);
    case EXT: return skip_bytes(v, v->number + 1);
    case ITEMS: return open_count(v, v->number, 1);
    case PAIRS: return open_count(v, v->number, 2);
    case OPEN: return open_values(v, WEIR_VALUES_OPEN);
    case BREAK: return close_open(v);
    case TAG: return WEIR_E_AGAIN;
    default: return fail(v, WEIR_E_PROTOCOL, "no value starts with this byte");
  }
}

/* Takes one byte of a head. */
static weir_status take_byte(weir_values *v, uint8_t byte) {
  if (v->missing > 0) {
    v->number = v->number << 8 | byte;
    v->missing--;
  } else {
    const head next = v->format == WEIR_VALUES_CBOR ? cbor_head(byte) : msgpack_head(byte);
    v->kind = next.kind;
    v->missing = next.bytes;
    v->number = next.number;
  }
  return v->missing > 0 ? WEIR_E_AGAIN : act(v);
}

void weir_values_init(weir_values *values, weir_values_format format, size_t max_value) {
  memset(values, 0, sizeof *values);
  values->format = format;
  values->max_value = max_value;
  weir_values_reset(values);
}

void weir_values_reset(weir_values *values) {
  values->size = values->skip = 0;
  values->missing = 0;
  values->depth = 0;
  values->failed = WEIR_OK;
  values->error = NULL;
}

weir_status weir_values_next(weir_values *v, const void *data, size_t len, size_t *taken) {
  const uint8_t *bytes = data;
  size_t at = 0, start = 0; /* of the head */
  weir_status status = v->failed != WEIR_OK ? v->failed : WEIR_E_AGAIN;
  while (status == WEIR_E_AGAIN && at < len) {
    if (v->skip > 0) {
      const size_t step = v->skip < len - at ? (size_t)v->skip : len - at;
      at += step;
      v->size += step;
      v->skip -= step;
      if (v->skip == 0) status = value_over(v);
      continue;
    }
    if (v->missing == 0) start = at;
    if (v->size == v->max_value) {
      status = too_long(v);
      break;
    }
    v->size++;
    status = take_byte(v, bytes[at++]);
  }
  *taken = status == WEIR_OK || status == WEIR_E_AGAIN ? at : start;
  return status;
}
