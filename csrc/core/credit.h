/*
 * Credit: how much a sender may send before its receiver has dealt with what came.
 *
 * Counted in bytes and in items (messages), both as cumulative limits since the beginning, the way
 * QUIC's MAX_DATA does it (RFC 9000, section 4.1): a grant names totals, so one that is lost, late
 * or repeated does no harm, and the newest says all.
 *
 * The rule both sides keep: an item may be sent while fewer bytes than the byte limit AND fewer
 * items than the item limit have been sent. The last item may so overdraw the byte limit; in return
 * an item larger than the whole window still gets through and nothing can deadlock. What is in
 * flight is below the window plus one item.
 *
 * Plain values without memory of their own; all sums saturate at UINT64_MAX, and a window of
 * UINT64_MAX is no limit.
 */
#ifndef WEIR_CREDIT_H
#define WEIR_CREDIT_H

#include <stdbool.h>
#include <stdint.h>

#include "core/status.h"

typedef struct weir_credit_sender {
  uint64_t limit_bytes, limit_items; /* granted in total */
  uint64_t used_bytes, used_items;   /* sent in total */
} weir_credit_sender;

typedef struct weir_credit_receiver {
  uint64_t window_bytes, window_items;     /* how much may be unconsumed */
  uint64_t received_bytes, received_items; /* came in total */
  uint64_t consumed_bytes, consumed_items; /* dealt with by the application in total */
  uint64_t granted_bytes, granted_items;   /* the limits that the sender was told */
} weir_credit_receiver;

static inline uint64_t weir_credit_add(uint64_t a, uint64_t b) {
  return a > UINT64_MAX - b ? UINT64_MAX : a + b;
}

/* The sender's side. Starts with nothing granted. */
static inline void weir_credit_sender_init(weir_credit_sender *sender) {
  *sender = (weir_credit_sender){0};
}

/* Whether one more item, of any size, may be sent. */
static inline bool weir_credit_sender_ok(const weir_credit_sender *sender) {
  return sender->used_bytes < sender->limit_bytes && sender->used_items < sender->limit_items;
}

/* One item of `bytes` bytes was sent. Only while weir_credit_sender_ok(). */
static inline void weir_credit_sender_spend(weir_credit_sender *sender, uint64_t bytes) {
  sender->used_bytes = weir_credit_add(sender->used_bytes, bytes);
  sender->used_items = weir_credit_add(sender->used_items, 1);
}

/* The receiver named new limits. Limits never go back: smaller ones are ignored, each by itself.
 * Returns whether this is what made sending possible. */
bool weir_credit_sender_grant(weir_credit_sender *sender, uint64_t limit_bytes,
                              uint64_t limit_items);

/* Granted and not used; 0 when overdrawn. */
static inline uint64_t weir_credit_sender_bytes(const weir_credit_sender *sender) {
  return sender->used_bytes < sender->limit_bytes ? sender->limit_bytes - sender->used_bytes : 0;
}

static inline uint64_t weir_credit_sender_items(const weir_credit_sender *sender) {
  return sender->used_items < sender->limit_items ? sender->limit_items - sender->used_items : 0;
}

/* The receiver's side. Nothing is granted until the first weir_credit_receiver_grant(), which is
 * due at once. A window of 0 never grants anything. */
void weir_credit_receiver_init(weir_credit_receiver *receiver, uint64_t window_bytes,
                               uint64_t window_items);

/* An item of `bytes` bytes came. WEIR_E_PROTOCOL, and not counted, when the sender had no credit.
 */
static inline weir_status weir_credit_receiver_receive(weir_credit_receiver *receiver,
                                                       uint64_t bytes) {
  if (receiver->received_bytes >= receiver->granted_bytes ||
      receiver->received_items >= receiver->granted_items) {
    return WEIR_E_PROTOCOL;
  }
  receiver->received_bytes = weir_credit_add(receiver->received_bytes, bytes);
  receiver->received_items++;
  return WEIR_OK;
}

/* The application took (or dropped) a received item of `bytes` bytes. WEIR_E_INVALID, and not
 * counted, when that is more than was received. */
static inline weir_status weir_credit_receiver_consume(weir_credit_receiver *receiver,
                                                       uint64_t bytes) {
  if (receiver->consumed_items >= receiver->received_items ||
      bytes > receiver->received_bytes - receiver->consumed_bytes) {
    return WEIR_E_INVALID;
  }
  receiver->consumed_bytes += bytes;
  receiver->consumed_items++;
  return WEIR_OK;
}

/* Whether the sender should be told new limits: at least half of a window (`force`: anything at
 * all) can be granted anew. Once all is consumed that is so whenever the sender is out of credit.
 */
static inline bool weir_credit_receiver_due(const weir_credit_receiver *receiver, bool force) {
  uint64_t bytes = weir_credit_add(receiver->consumed_bytes, receiver->window_bytes);
  uint64_t items = weir_credit_add(receiver->consumed_items, receiver->window_items);
  uint64_t new_bytes = bytes > receiver->granted_bytes ? bytes - receiver->granted_bytes : 0;
  uint64_t new_items = items > receiver->granted_items ? items - receiver->granted_items : 0;
  if (force) return new_bytes > 0 || new_items > 0;
  return (new_bytes > 0 && new_bytes >= receiver->window_bytes / 2) ||
         (new_items > 0 && new_items >= receiver->window_items / 2);
}

/* The limits to tell the sender now; they count as told. */
void weir_credit_receiver_grant(weir_credit_receiver *receiver, uint64_t *limit_bytes,
                                uint64_t *limit_items);

#endif
