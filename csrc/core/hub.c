#include "core/hub.h"

#include <stddef.h>

void weir_hub_init(weir_hub *hub) {
  weir_list_init(&hub->ready);
  hub->now = 0;
  hub->time = 0;
}

void weir_source_init(weir_source *source, weir_hub *hub) {
  weir_list_init(&source->link);
  source->hub = hub;
  source->pending = 0;
}

void weir_source_clear(weir_source *source) {
  source->pending = 0;
  weir_list_remove(&source->link);
}

void weir_hub_notify(weir_source *source, uint32_t bits) {
  if (source->pending == 0) weir_list_append(&source->hub->ready, &source->link);
  source->pending |= bits;
}

weir_source *weir_hub_next(weir_hub *hub, uint32_t *bits) {
  weir_link *link = weir_list_first(&hub->ready);
  if (link == NULL) return NULL;
  weir_source *source = weir_list_of(link, weir_source, link);
  *bits = source->pending;
  weir_source_clear(source);
  return source;
}
