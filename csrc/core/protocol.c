#include "core/protocol.h"

#include <string.h>

#include "core/bytes.h"

static const unsigned char MAGIC[4] = {'w', 'e', 'i', 'r'};

/* Handshake fields: tag:u16 length:u16 value. A reader skips unknown tags that have the top bit. */
enum {
  FIELD_OPTIONAL = 0x8000,
  FIELD_NETWORK = 0x0001,
  FIELD_STREAM = 0x0002,
  FIELD_CODEC = 0x0003,
  FIELD_CRITERIA = 0x0005,
  FIELD_CREDIT = 0x0008,
  FIELD_NODE = 0x000a,
  FIELD_SCHEMA = 0x8004,
  FIELD_TOKEN = 0x8006,
  FIELD_POSITION = 0x8007,
  FIELD_TAG = 0x800b,
  FIELD_AGENT = 0x800c
};

#define PAYLOAD_HEADER (WEIR_PREAMBLE - 4)
#define HANDSHAKE_HEADER (PAYLOAD_HEADER + 8) /* magic, two versions */
#define ANNOUNCEMENT_SIZE (4 + WEIR_ID_SIZE)  /* op:u8 reserved:u8 extra:u16 id */

enum {
  ANNOUNCE_ADD = 1,
  ANNOUNCE_REMOVE = 2
};

const char *weir_close_name(uint32_t code) {
  switch (code) {
    case WEIR_CLOSE_BAD_VERSION: return "bad_version";
    case WEIR_CLOSE_WRONG_NETWORK: return "wrong_network";
    case WEIR_CLOSE_CANCELLED: return "cancelled";
    case WEIR_CLOSE_UNEXPECTED: return "disconnected";
    case WEIR_CLOSE_TIMEOUT: return "timeout";
    case WEIR_CLOSE_SUCCESS: return "success";
    case WEIR_CLOSE_SHUTDOWN: return "shutdown";
    case WEIR_CLOSE_PROTOCOL: return "protocol";
    case WEIR_CLOSE_UNKNOWN_PEER: return "unknown_peer";
    case WEIR_CLOSE_NOT_ALLOWED: return "not_allowed";
    case WEIR_CLOSE_NOT_FOUND: return "not_found";
    case WEIR_CLOSE_TOO_SLOW: return "too_slow";
    case WEIR_CLOSE_WRONG_CODEC: return "wrong_codec";
    case WEIR_CLOSE_NO_CAPACITY: return "no_capacity";
    default: return "closed";
  }
}

/* --- writing ---------------------------------------------------------------------------------- */

static void put_header(unsigned char *out, size_t frame_len, weir_frame_type type) {
  weir_put_u32(out, (uint32_t)(frame_len - 4));
  out[4] = (unsigned char)type;
  out[5] = 0;
  weir_put_u16(out + 6, 0);
}

/* Starts a handshake frame; fields follow, end_handshake() sets its length. */
static void begin_handshake(weir_frame_buffer *frame, uint16_t version_min, uint16_t version_max) {
  unsigned char *out = frame->bytes + WEIR_PREAMBLE;
  memcpy(out, MAGIC, sizeof MAGIC);
  weir_put_u16(out + 4, version_min);
  weir_put_u16(out + 6, version_max);
  frame->len = WEIR_PREAMBLE + 8;
}

static weir_status put_field(weir_frame_buffer *frame, uint16_t tag, const void *value, size_t len,
                             size_t max) {
  if (len > max || len > UINT16_MAX || frame->len + 4 + len > sizeof frame->bytes) {
    return WEIR_E_LIMIT;
  }
  unsigned char *out = frame->bytes + frame->len;
  weir_put_u16(out, tag);
  weir_put_u16(out + 2, (uint16_t)len);
  if (len > 0) memcpy(out + 4, value, len);
  frame->len += 4 + len;
  return WEIR_OK;
}

static weir_status put_slice(weir_frame_buffer *frame, uint16_t tag, weir_slice slice, size_t max) {
  if (slice.len == 0) return WEIR_OK;
  return put_field(frame, tag, slice.ptr, slice.len, max);
}

static weir_status put_pair(weir_frame_buffer *frame, uint16_t tag, uint64_t first,
                            uint64_t second) {
  unsigned char value[16];
  weir_put_u64(value, first);
  weir_put_u64(value + 8, second);
  return put_field(frame, tag, value, sizeof value, sizeof value);
}

static weir_status end_handshake(weir_frame_buffer *frame, weir_frame_type type) {
  put_header(frame->bytes, frame->len, type);
  return WEIR_OK;
}

#define TRY(expression)                             \
  do {                                              \
    weir_status try_status_ = (expression);         \
    if (try_status_ != WEIR_OK) return try_status_; \
  } while (0)

weir_status weir_write_hello(weir_frame_buffer *frame, const weir_hello *hello) {
  if (hello->tag_count > WEIR_MAX_TAGS) return WEIR_E_LIMIT;
  begin_handshake(frame, hello->version_min, hello->version_max);
  TRY(put_field(frame, FIELD_NETWORK, hello->network, WEIR_ID_SIZE, WEIR_ID_SIZE));
  TRY(put_field(frame, FIELD_NODE, hello->node, WEIR_ID_SIZE, WEIR_ID_SIZE));
  for (size_t i = 0; i < hello->tag_count; i++) {
    TRY(put_slice(frame, FIELD_TAG, hello->tags[i], WEIR_MAX_NAME));
  }
  TRY(put_slice(frame, FIELD_AGENT, hello->agent, WEIR_MAX_NAME));
  return end_handshake(frame, WEIR_FRAME_HELLO);
}

weir_status weir_write_subscribe(weir_frame_buffer *frame, const weir_subscribe *subscribe) {
  begin_handshake(frame, subscribe->version, subscribe->version);
  TRY(put_field(frame, FIELD_NETWORK, subscribe->network, WEIR_ID_SIZE, WEIR_ID_SIZE));
  TRY(put_field(frame, FIELD_STREAM, subscribe->stream, WEIR_ID_SIZE, WEIR_ID_SIZE));
  TRY(put_slice(frame, FIELD_CODEC, subscribe->codec, WEIR_MAX_NAME));
  TRY(put_slice(frame, FIELD_SCHEMA, subscribe->schema, WEIR_MAX_NAME));
  TRY(put_slice(frame, FIELD_CRITERIA, subscribe->criteria, WEIR_MAX_CRITERIA));
  TRY(put_slice(frame, FIELD_TOKEN, subscribe->token, WEIR_MAX_TOKEN));
  if (subscribe->has_resume) {
    TRY(put_pair(frame, FIELD_POSITION, subscribe->resume_epoch, subscribe->resume_sequence));
  }
  TRY(put_pair(frame, FIELD_CREDIT, subscribe->credit_bytes, subscribe->credit_items));
  return end_handshake(frame, WEIR_FRAME_SUBSCRIBE);
}

weir_status weir_write_start(weir_frame_buffer *frame, const weir_start *start) {
  begin_handshake(frame, start->version, start->version);
  TRY(put_field(frame, FIELD_NETWORK, start->network, WEIR_ID_SIZE, WEIR_ID_SIZE));
  TRY(put_field(frame, FIELD_STREAM, start->stream, WEIR_ID_SIZE, WEIR_ID_SIZE));
  TRY(put_slice(frame, FIELD_CODEC, start->codec, WEIR_MAX_NAME));
  TRY(put_slice(frame, FIELD_SCHEMA, start->schema, WEIR_MAX_NAME));
  TRY(put_pair(frame, FIELD_POSITION, start->epoch, start->sequence));
  return end_handshake(frame, WEIR_FRAME_START);
}

size_t weir_write_announce(weir_frame_buffer *frame, bool add, const unsigned char *ids,
                           size_t count) {
  const size_t fit = (sizeof frame->bytes - WEIR_PREAMBLE) / ANNOUNCEMENT_SIZE;
  if (count > fit) count = fit;
  unsigned char *out = frame->bytes + WEIR_PREAMBLE;
  for (size_t i = 0; i < count; i++, out += ANNOUNCEMENT_SIZE) {
    out[0] = add ? ANNOUNCE_ADD : ANNOUNCE_REMOVE;
    out[1] = 0;
    weir_put_u16(out + 2, 0);
    memcpy(out + 4, ids + i * WEIR_ID_SIZE, WEIR_ID_SIZE);
  }
  frame->len = WEIR_PREAMBLE + count * ANNOUNCEMENT_SIZE;
  put_header(frame->bytes, frame->len, WEIR_FRAME_ANNOUNCE);
  return count;
}

size_t weir_write_grant(unsigned char *out, const weir_grant *grant) {
  put_header(out, WEIR_GRANT_SIZE, WEIR_FRAME_CREDIT);
  weir_put_u64(out + 8, grant->epoch);
  weir_put_u64(out + 16, grant->acknowledged);
  weir_put_u64(out + 24, grant->limit_bytes);
  weir_put_u64(out + 32, grant->limit_items);
  return WEIR_GRANT_SIZE;
}

size_t weir_write_gap(unsigned char *out, const weir_gap *gap) {
  put_header(out, WEIR_GAP_SIZE, WEIR_FRAME_GAP);
  weir_put_u64(out + 8, gap->epoch);
  weir_put_u64(out + 16, gap->from);
  weir_put_u64(out + 24, gap->to);
  return WEIR_GAP_SIZE;
}

size_t weir_write_sync(unsigned char *out, const weir_sync *sync) {
  put_header(out, WEIR_SYNC_SIZE, WEIR_FRAME_SYNC);
  weir_put_u64(out + 8, sync->epoch);
  weir_put_u64(out + 16, sync->sequence);
  return WEIR_SYNC_SIZE;
}

/* The longest prefix of at most `max` bytes that does not end inside a UTF-8 character. */
static size_t cut_text(const char *text, size_t len, size_t max) {
  if (len <= max) return len;
  while (max > 0 && ((unsigned char)text[max] & 0xc0u) == 0x80u)
    max--;
  return max;
}

size_t weir_write_close(unsigned char *out, uint32_t code, const char *reason, size_t reason_len) {
  reason_len = cut_text(reason, reason_len, WEIR_MAX_REASON);
  const size_t len = WEIR_PREAMBLE + 4 + reason_len;
  put_header(out, len, WEIR_FRAME_CLOSE);
  weir_put_u32(out + 8, code);
  if (reason_len > 0) memcpy(out + 12, reason, reason_len);
  return len;
}

void weir_write_data_header(unsigned char *out, uint64_t epoch, uint64_t sequence, uint64_t time,
                            size_t payload_len) {
  put_header(out, WEIR_DATA_HEADER + payload_len, WEIR_FRAME_DATA);
  weir_put_u64(out + 8, epoch);
  weir_put_u64(out + 16, sequence);
  weir_put_u64(out + 24, time);
}

/* --- reading ---------------------------------------------------------------------------------- */

int weir_frame_type_of(const unsigned char *payload, size_t len) {
  return len < PAYLOAD_HEADER ? -1 : payload[0];
}

static bool is_frame(const unsigned char *payload, size_t len, weir_frame_type type,
                     size_t body_len) {
  return len >= PAYLOAD_HEADER + body_len && payload[0] == type;
}

typedef struct field {
  uint16_t tag;
  weir_slice value;
} field;

/* The next field of a handshake; AGAIN at its end. */
static weir_status read_field(const unsigned char *payload, size_t len, size_t *at, field *out) {
  if (*at == len) return WEIR_E_AGAIN;
  if (len - *at < 4) return WEIR_E_PROTOCOL;
  out->tag = weir_get_u16(payload + *at);
  out->value.buf = NULL;
  out->value.len = weir_get_u16(payload + *at + 2);
  out->value.ptr = payload + *at + 4;
  if (out->value.len > len - *at - 4) return WEIR_E_PROTOCOL;
  *at += 4 + out->value.len;
  return WEIR_OK;
}

static weir_status read_handshake(const unsigned char *payload, size_t len, weir_frame_type type,
                                  uint16_t *version_min, uint16_t *version_max) {
  if (!is_frame(payload, len, type, 8)) return WEIR_E_PROTOCOL;
  if (memcmp(payload + PAYLOAD_HEADER, MAGIC, sizeof MAGIC) != 0) return WEIR_E_PROTOCOL;
  *version_min = weir_get_u16(payload + PAYLOAD_HEADER + 4);
  *version_max = weir_get_u16(payload + PAYLOAD_HEADER + 6);
  if (*version_min > *version_max) return WEIR_E_PROTOCOL;
  if (*version_min > WEIR_PROTOCOL_VERSION || *version_max < WEIR_PROTOCOL_VERSION) {
    return WEIR_E_VERSION;
  }
  return WEIR_OK;
}

static weir_status take_id(weir_slice value, unsigned char *id) {
  if (value.len != WEIR_ID_SIZE) return WEIR_E_PROTOCOL;
  memcpy(id, value.ptr, WEIR_ID_SIZE);
  return WEIR_OK;
}

static weir_status take_bytes(weir_slice value, size_t max, weir_slice *out) {
  if (value.len > max) return WEIR_E_PROTOCOL;
  *out = value;
  return WEIR_OK;
}

static weir_status take_pair(weir_slice value, uint64_t *first, uint64_t *second) {
  if (value.len != 16) return WEIR_E_PROTOCOL;
  *first = weir_get_u64(value.ptr);
  *second = weir_get_u64(value.ptr + 8);
  return WEIR_OK;
}

/* Fields that must be there use the lowest bits of `seen`, the others those from here. */
#define OTHER 8u
#define REQUIRED 7u

/* No field but TAG may come twice: whoever checks the first must not act on the second. */
static weir_status once(unsigned *seen, unsigned bit) {
  if ((*seen & bit) != 0) return WEIR_E_PROTOCOL;
  *seen |= bit;
  return WEIR_OK;
}

static weir_status unknown_field(uint16_t tag) {
  return (tag & FIELD_OPTIONAL) != 0 ? WEIR_OK : WEIR_E_PROTOCOL;
}

/* Reads all fields of a handshake with `take`, which notes in `seen` what came; `all` must have. */
static weir_status read_fields(const unsigned char *payload, size_t len,
                               weir_status (*take)(void *handshake, const field *f, unsigned *seen),
                               void *handshake, unsigned all) {
  size_t at = HANDSHAKE_HEADER;
  unsigned seen = 0;
  field f;
  weir_status status;
  while ((status = read_field(payload, len, &at, &f)) == WEIR_OK) {
    TRY(take(handshake, &f, &seen));
  }
  if (status != WEIR_E_AGAIN) return status;
  return (seen & all) == all ? WEIR_OK : WEIR_E_PROTOCOL;
}

static weir_status hello_field(void *handshake, const field *f, unsigned *seen) {
  weir_hello *hello = handshake;
  switch (f->tag) {
    case FIELD_NETWORK: TRY(once(seen, 1u)); return take_id(f->value, hello->network);
    case FIELD_NODE: TRY(once(seen, 2u)); return take_id(f->value, hello->node);
    case FIELD_AGENT:
      TRY(once(seen, OTHER));
      return take_bytes(f->value, WEIR_MAX_NAME, &hello->agent);
    case FIELD_TAG:
      if (hello->tag_count == WEIR_MAX_TAGS) return WEIR_E_PROTOCOL;
      return take_bytes(f->value, WEIR_MAX_NAME, &hello->tags[hello->tag_count++]);
    default: return unknown_field(f->tag);
  }
}

weir_status weir_read_hello(const unsigned char *payload, size_t len, weir_hello *hello) {
  memset(hello, 0, sizeof *hello);
  TRY(read_handshake(payload, len, WEIR_FRAME_HELLO, &hello->version_min, &hello->version_max));
  return read_fields(payload, len, hello_field, hello, 3u);
}

static weir_status subscribe_field(void *handshake, const field *f, unsigned *seen) {
  weir_subscribe *out = handshake;
  switch (f->tag) {
    case FIELD_NETWORK: TRY(once(seen, 1u)); return take_id(f->value, out->network);
    case FIELD_STREAM: TRY(once(seen, 2u)); return take_id(f->value, out->stream);
    case FIELD_CODEC:
      TRY(once(seen, OTHER));
      return take_bytes(f->value, WEIR_MAX_NAME, &out->codec);
    case FIELD_SCHEMA:
      TRY(once(seen, OTHER << 1));
      return take_bytes(f->value, WEIR_MAX_NAME, &out->schema);
    case FIELD_CRITERIA:
      TRY(once(seen, OTHER << 2));
      return take_bytes(f->value, WEIR_MAX_CRITERIA, &out->criteria);
    case FIELD_TOKEN:
      TRY(once(seen, OTHER << 3));
      return take_bytes(f->value, WEIR_MAX_TOKEN, &out->token);
    case FIELD_POSITION:
      TRY(once(seen, OTHER << 4));
      out->has_resume = true;
      return take_pair(f->value, &out->resume_epoch, &out->resume_sequence);
    case FIELD_CREDIT:
      TRY(once(seen, 4u));
      return take_pair(f->value, &out->credit_bytes, &out->credit_items);
    default: return unknown_field(f->tag);
  }
}

weir_status weir_read_subscribe(const unsigned char *payload, size_t len, weir_subscribe *out) {
  memset(out, 0, sizeof *out);
  uint16_t highest;
  TRY(read_handshake(payload, len, WEIR_FRAME_SUBSCRIBE, &out->version, &highest));
  return read_fields(payload, len, subscribe_field, out, REQUIRED);
}

static weir_status start_field(void *handshake, const field *f, unsigned *seen) {
  weir_start *start = handshake;
  switch (f->tag) {
    case FIELD_NETWORK: TRY(once(seen, 1u)); return take_id(f->value, start->network);
    case FIELD_STREAM: TRY(once(seen, 2u)); return take_id(f->value, start->stream);
    case FIELD_CODEC:
      TRY(once(seen, OTHER));
      return take_bytes(f->value, WEIR_MAX_NAME, &start->codec);
    case FIELD_SCHEMA:
      TRY(once(seen, OTHER << 1));
      return take_bytes(f->value, WEIR_MAX_NAME, &start->schema);
    case FIELD_POSITION:
      TRY(once(seen, 4u));
      return take_pair(f->value, &start->epoch, &start->sequence);
    default: return unknown_field(f->tag);
  }
}

weir_status weir_read_start(const unsigned char *payload, size_t len, weir_start *start) {
  memset(start, 0, sizeof *start);
  uint16_t highest;
  TRY(read_handshake(payload, len, WEIR_FRAME_START, &start->version, &highest));
  return read_fields(payload, len, start_field, start, REQUIRED);
}

weir_status weir_read_data(const unsigned char *payload, size_t len, weir_data *data) {
  if (!is_frame(payload, len, WEIR_FRAME_DATA, 24)) return WEIR_E_PROTOCOL;
  data->epoch = weir_get_u64(payload + 4);
  data->sequence = weir_get_u64(payload + 12);
  data->time = weir_get_u64(payload + 20);
  data->payload.buf = NULL;
  data->payload.ptr = payload + WEIR_DATA_HEADER - 4;
  data->payload.len = len - (WEIR_DATA_HEADER - 4);
  return WEIR_OK;
}

weir_status weir_read_grant(const unsigned char *payload, size_t len, weir_grant *grant) {
  if (!is_frame(payload, len, WEIR_FRAME_CREDIT, 32)) return WEIR_E_PROTOCOL;
  grant->epoch = weir_get_u64(payload + 4);
  grant->acknowledged = weir_get_u64(payload + 12);
  grant->limit_bytes = weir_get_u64(payload + 20);
  grant->limit_items = weir_get_u64(payload + 28);
  return WEIR_OK;
}

weir_status weir_read_gap(const unsigned char *payload, size_t len, weir_gap *gap) {
  if (!is_frame(payload, len, WEIR_FRAME_GAP, 24)) return WEIR_E_PROTOCOL;
  gap->epoch = weir_get_u64(payload + 4);
  gap->from = weir_get_u64(payload + 12);
  gap->to = weir_get_u64(payload + 20);
  return gap->from < gap->to ? WEIR_OK : WEIR_E_PROTOCOL;
}

weir_status weir_read_sync(const unsigned char *payload, size_t len, weir_sync *sync) {
  if (!is_frame(payload, len, WEIR_FRAME_SYNC, 16)) return WEIR_E_PROTOCOL;
  sync->epoch = weir_get_u64(payload + 4);
  sync->sequence = weir_get_u64(payload + 12);
  return WEIR_OK;
}

weir_status weir_read_close(const unsigned char *payload, size_t len, weir_closing *closing) {
  if (!is_frame(payload, len, WEIR_FRAME_CLOSE, 4)) return WEIR_E_PROTOCOL;
  closing->code = weir_get_u32(payload + 4);
  closing->reason.buf = NULL;
  closing->reason.ptr = payload + 8;
  closing->reason.len = len - 8;
  return closing->reason.len <= WEIR_MAX_REASON ? WEIR_OK : WEIR_E_PROTOCOL;
}

weir_status weir_read_announce(const unsigned char *payload, size_t len, size_t *at,
                               weir_announcement *announcement) {
  if (*at == 0) {
    if (!is_frame(payload, len, WEIR_FRAME_ANNOUNCE, 0)) return WEIR_E_PROTOCOL;
    *at = PAYLOAD_HEADER;
  }
  if (*at == len) return WEIR_E_AGAIN;
  const unsigned char *entry = payload + *at;
  if (len - *at < ANNOUNCEMENT_SIZE) return WEIR_E_PROTOCOL;
  const size_t extra = weir_get_u16(entry + 2);
  if (len - *at - ANNOUNCEMENT_SIZE < extra) return WEIR_E_PROTOCOL;
  if (entry[0] != ANNOUNCE_ADD && entry[0] != ANNOUNCE_REMOVE) return WEIR_E_PROTOCOL;
  announcement->add = entry[0] == ANNOUNCE_ADD;
  announcement->stream = entry + 4;
  *at += ANNOUNCEMENT_SIZE + extra;
  return WEIR_OK;
}
