#include "core/credit.h"

bool weir_credit_sender_grant(weir_credit_sender *sender, uint64_t limit_bytes,
                              uint64_t limit_items) {
  bool was_ok = weir_credit_sender_ok(sender);
  if (limit_bytes > sender->limit_bytes) sender->limit_bytes = limit_bytes;
  if (limit_items > sender->limit_items) sender->limit_items = limit_items;
  return !was_ok && weir_credit_sender_ok(sender);
}

void weir_credit_receiver_init(weir_credit_receiver *receiver, uint64_t window_bytes,
                               uint64_t window_items) {
  *receiver = (weir_credit_receiver){.window_bytes = window_bytes, .window_items = window_items};
}

void weir_credit_receiver_grant(weir_credit_receiver *receiver, uint64_t *limit_bytes,
                                uint64_t *limit_items) {
  uint64_t bytes = weir_credit_add(receiver->consumed_bytes, receiver->window_bytes);
  uint64_t items = weir_credit_add(receiver->consumed_items, receiver->window_items);
  if (bytes > receiver->granted_bytes) receiver->granted_bytes = bytes;
  if (items > receiver->granted_items) receiver->granted_items = items;
  *limit_bytes = receiver->granted_bytes;
  *limit_items = receiver->granted_items;
}
