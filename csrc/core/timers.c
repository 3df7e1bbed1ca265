#include "core/timers.h"

#define FIRST_SIZE 4
#define ARITY 4
#define NONE UINT32_MAX

/* An id is 53 bits: the low 26 of the timer's number, then 27 for slot + 1. */
#define SLOT_BITS 27
#define SLOT_MASK ((UINT64_C(1) << SLOT_BITS) - 1)
#define NUMBER_MASK ((UINT64_C(1) << 26) - 1)

struct weir_timer {
  uint64_t deadline;
  uint64_t number; /* how many were added before it: decides between equal deadlines */
  uint64_t token;
  uint32_t slot;
};

void weir_timers_init(weir_timers *timers, const weir_alloc *alloc) {
  *timers = (weir_timers){.alloc = weir_alloc_or_default(alloc), .free = NONE};
}

void weir_timers_clear(weir_timers *timers) {
  weir_free(timers->alloc, timers->heap);
  weir_free(timers->alloc, timers->slots);
  timers->heap = NULL;
  timers->slots = NULL;
  timers->count = timers->size = timers->used = 0;
  timers->free = NONE;
}

static bool before(const weir_timer *a, const weir_timer *b) {
  return a->deadline != b->deadline ? a->deadline < b->deadline : a->number < b->number;
}

static void put(weir_timers *timers, uint32_t at, const weir_timer *timer) {
  timers->heap[at] = *timer;
  timers->slots[timer->slot] = at;
}

static void sift_up(weir_timers *timers, uint32_t at, const weir_timer *timer) {
  while (at > 0) {
    uint32_t parent = (at - 1) / ARITY;
    if (!before(timer, &timers->heap[parent])) break;
    put(timers, at, &timers->heap[parent]);
    at = parent;
  }
  put(timers, at, timer);
}

static void sift_down(weir_timers *timers, uint32_t at, const weir_timer *timer) {
  for (;;) {
    uint32_t child = at * ARITY + 1;
    if (child >= timers->count) break;
    uint32_t end = timers->count - child < ARITY ? timers->count : child + ARITY;
    uint32_t least = child;
    while (++child < end) {
      if (before(&timers->heap[child], &timers->heap[least])) least = child;
    }
    if (!before(&timers->heap[least], timer)) break;
    put(timers, at, &timers->heap[least]);
    at = least;
  }
  put(timers, at, timer);
}

static weir_status grow(weir_timers *timers) {
  if (timers->size >= WEIR_TIMERS_MAX) return WEIR_E_LIMIT;
  uint32_t size = timers->size == 0 ? FIRST_SIZE : timers->size * 2;
  weir_timer *heap = weir_resize_array(timers->alloc, timers->heap, size, sizeof(weir_timer));
  if (heap == NULL) return WEIR_E_NOMEM;
  timers->heap = heap;
  uint32_t *slots = weir_resize_array(timers->alloc, timers->slots, size, sizeof(uint32_t));
  if (slots == NULL) return WEIR_E_NOMEM;
  timers->slots = slots;
  timers->size = size;
  return WEIR_OK;
}

static uint32_t take_slot(weir_timers *timers) {
  uint32_t slot = timers->free;
  if (slot == NONE) return timers->used++;
  timers->free = timers->slots[slot];
  return slot;
}

static uint64_t id_of(const weir_timer *timer) {
  return (timer->number & NUMBER_MASK) << SLOT_BITS | ((uint64_t)timer->slot + 1);
}

/* Takes the timer at place `at` out of the heap and fills the gap with the last one. */
static void take(weir_timers *timers, uint32_t at) {
  uint32_t slot = timers->heap[at].slot;
  weir_timer last = timers->heap[--timers->count];
  timers->slots[slot] = timers->free;
  timers->free = slot;
  if (timers->count == 0) {
    if (timers->size > WEIR_TIMERS_KEEP) weir_timers_clear(timers);
  } else if (at < timers->count) {
    if (at > 0 && before(&last, &timers->heap[(at - 1) / ARITY])) {
      sift_up(timers, at, &last);
    } else {
      sift_down(timers, at, &last);
    }
  }
}

weir_status weir_timers_add(weir_timers *timers, uint64_t deadline, uint64_t token, uint64_t *id) {
  if (timers->count == timers->size) {
    weir_status status = grow(timers);
    if (status != WEIR_OK) return status;
  }
  weir_timer timer = {deadline, timers->added++, token, take_slot(timers)};
  *id = id_of(&timer);
  sift_up(timers, timers->count++, &timer);
  return WEIR_OK;
}

bool weir_timers_cancel(weir_timers *timers, uint64_t id, uint64_t *token) {
  uint64_t slot = (id & SLOT_MASK) - 1; /* wraps for 0, which is out of range below */
  if (slot >= timers->used) return false;
  uint32_t at = timers->slots[slot];
  /* The slot of a timer that is gone holds another number: only the timer itself can say its id. */
  if (at >= timers->count || id_of(&timers->heap[at]) != id) return false;
  if (token != NULL) *token = timers->heap[at].token;
  take(timers, at);
  return true;
}

uint64_t weir_timers_next(const weir_timers *timers) {
  return timers->count > 0 ? timers->heap[0].deadline : WEIR_NEVER;
}

bool weir_timers_expired(weir_timers *timers, uint64_t now, uint64_t *id, uint64_t *token) {
  if (timers->count == 0 || timers->heap[0].deadline > now) return false;
  if (timers->heap[0].deadline == WEIR_NEVER) return false;
  if (id != NULL) *id = id_of(&timers->heap[0]);
  if (token != NULL) *token = timers->heap[0].token;
  take(timers, 0);
  return true;
}
