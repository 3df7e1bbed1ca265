#include "core/queue.h"

#include <string.h>

#define FIRST_SIZE 4
#define MOST_ITEMS (UINT32_C(1) << 31)

static size_t clamp(size_t value, size_t most) {
  if (value < 1) return 1;
  return value < most ? value : most;
}

void weir_queue_init(weir_queue *queue, const weir_alloc *alloc, size_t max_items,
                     size_t max_bytes) {
  *queue = (weir_queue){
      .alloc = weir_alloc_or_default(alloc),
      .max_items = (uint32_t)clamp(max_items, MOST_ITEMS),
      /* The bound plus one slice, which is an object in memory, then always fits in a size_t. */
      .max_bytes = clamp(max_bytes, SIZE_MAX / 2),
  };
}

void weir_queue_clear(weir_queue *queue) {
  while (queue->head != queue->tail) {
    weir_slice_unref(&queue->ring[queue->head++ & (queue->size - 1)].slice);
  }
  weir_free(queue->alloc, queue->ring);
  queue->ring = NULL;
  queue->size = 0;
  queue->head = queue->tail = queue->drained = 0;
  queue->bytes = 0;
}

weir_status weir_queue_grow(weir_queue *queue) {
  uint32_t old = queue->size;
  if (old >= MOST_ITEMS) return WEIR_E_NOMEM;
  uint32_t size = old == 0 ? FIRST_SIZE : old * 2;
  weir_queue_item *ring =
      weir_resize_array(queue->alloc, queue->ring, size, sizeof(weir_queue_item));
  if (ring == NULL) return WEIR_E_NOMEM;
  /* A full ring is two runs: [start, old) and then [0, start). The second goes behind the first,
   * and the counters begin anew where the first starts. */
  uint32_t start = old == 0 ? 0 : queue->head & (old - 1);
  memcpy(ring + old, ring, start * sizeof(weir_queue_item));
  queue->ring = ring;
  queue->size = size;
  queue->head = start;
  queue->tail = start + old;
  queue->drained = start; /* as good as: the ring is full */
  return WEIR_OK;
}

/* Few items have gone through the ring since it was last empty: it is larger than it need be. */
static void shrink(weir_queue *queue) {
  uint32_t size = queue->size / 2;
  weir_queue_item *ring =
      weir_resize_array(queue->alloc, queue->ring, size, sizeof(weir_queue_item));
  if (ring == NULL) return;
  queue->ring = ring;
  queue->size = size;
}

void weir_queue_drained(weir_queue *queue) {
  if (queue->tail - queue->drained < queue->size / 4) shrink(queue);
  queue->drained = queue->tail;
}
