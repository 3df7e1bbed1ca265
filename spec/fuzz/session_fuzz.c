/*
 * Fuzzes a whole session, as the side that connects or as the other: raw bytes come in, and an
 * application that answers requests, produces, reads, announces and lets time pass, all as the
 * input says. Nothing may break, memory must stay bounded, and at the end all of it must be free.
 *
 * Input: a byte that chooses the side, then steps: a choice, a length, that many bytes.
 */

#include "core/session.h"
#include "core/time.h"
#include "support.h"

static const unsigned char NETWORK[WEIR_ID_SIZE] = {1}, NODE[WEIR_ID_SIZE] = {2},
                           STREAM[WEIR_ID_SIZE] = {4};

typedef struct world {
  counted_memory memory;
  weir_hub hub;
  weir_session *session;
  weir_producer *producer;
  weir_consumer *consumer;
  bool dead;
} world;

static void answer(world *w, uint8_t choice) {
  const weir_request *request = weir_session_next_request(w->session);
  if (request == NULL) return;
  uint64_t id;
  if (choice % 4 == 3 ||
      weir_session_accept(w->session, request->id, w->producer, request->subscribe.codec,
                          request->subscribe.schema, &id) != WEIR_OK) {
    (void)weir_session_reject(w->session, request->id, WEIR_CLOSE_NOT_FOUND, "no");
  }
}

static void read_all(world *w) {
  weir_item item;
  while (weir_consumer_peek(w->consumer, &item) == WEIR_OK)
    weir_consumer_pop(w->consumer, &item);
  while (weir_consumer_next_change(w->consumer) != NULL) {
  }
  bool add;
  unsigned char id[WEIR_ID_SIZE];
  while (weir_session_next_announcement(w->session, &add, id)) {
  }
}

static void act(world *w, uint8_t choice) {
  weir_endpoint *endpoint = weir_session_endpoint(w->session);
  weir_subscribe subscribe = {.has_resume = choice % 2, .resume_epoch = 5};
  weir_inlet *inlet;
  switch (choice / 16) {
    case 0: answer(w, choice); break;
    case 1:
      memcpy(subscribe.stream, STREAM, WEIR_ID_SIZE);
      (void)weir_session_subscribe(w->session, w->consumer, &subscribe, &inlet);
      break;
    case 2: (void)weir_producer_send(w->producer, NETWORK, choice % WEIR_ID_SIZE); break;
    case 3: read_all(w); break;
    case 4: (void)weir_session_announce(w->session, choice % 2, STREAM, 1); break;
    case 5: (void)weir_producer_sync(w->producer); break;
    case 6:
      w->hub.now += (uint64_t)(choice % 16) * WEIR_SECOND;
      if (endpoint->tick(endpoint, w->hub.now) != WEIR_OK) w->dead = true;
      break;
    case 7: (void)weir_producer_detach_id(w->producer, choice % 16, choice, "go"); break;
    case 8:
      if (choice == 0x80) weir_session_close(w->session, choice, "bye");
      break;
    case 9:
      inlet = weir_consumer_find(w->consumer, choice % 16);
      if (inlet != NULL) weir_inlet_close(inlet, choice, "enough");
      break;
    default: break;
  }
}

static void write_out(world *w, size_t max) {
  weir_endpoint *endpoint = weir_session_endpoint(w->session);
  weir_iov iov[8];
  while (max > 0 && endpoint->output(endpoint, iov, 8, w->hub.now) > 0) {
    const size_t len = iov[0].len < max ? iov[0].len : max;
    volatile unsigned char last = ((const unsigned char *)iov[0].base)[len - 1];
    (void)last;
    endpoint->sent(endpoint, len);
    max -= len;
  }
}

static void play(world *w, const uint8_t *data, size_t size) {
  weir_endpoint *endpoint = weir_session_endpoint(w->session);
  while (size >= 2 && !w->dead) {
    const size_t len = data[1] < size - 2 ? data[1] : size - 2;
    unsigned char *piece = copy_of(data + 2, len);
    if (endpoint->feed(endpoint, piece, len, w->hub.now) != WEIR_OK) w->dead = true;
    free(piece);
    if (!w->dead) act(w, data[0]);
    write_out(w, data[0] % 5 == 0 ? 7 : SIZE_MAX);
    data += 2 + len;
    size -= 2 + len;
  }
  if (!w->dead && size > 0) endpoint->ended(endpoint, WEIR_OK);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  if (size < 2) return 0;
  world w = {.dead = false};
  weir_session_config config = {.client = data[0] % 2 == 0};
  memcpy(config.network, NETWORK, WEIR_ID_SIZE);
  memcpy(config.node, NODE, WEIR_ID_SIZE);
  weir_hub_init(&w.hub);
  w.hub.now = WEIR_SECOND;
  counted_init(&w.memory);
  w.memory.fail_at = data[1] < 128 ? 0 : data[1] - 100;
  w.producer =
      weir_producer_new(NULL, &w.hub, &(weir_producer_config){.epoch = 5, .max_items = 16});
  w.consumer = weir_consumer_new(&w.memory.alloc, &w.hub,
                                 &(weir_consumer_config){.max_items = 8, .max_bytes = 4096});
  w.session = weir_session_new(&w.memory.alloc, &w.hub, &config);
  check(w.consumer != NULL);
  w.producer->online = true;
  if (w.session != NULL) play(&w, data + 2, size - 2);
  check(w.memory.most < 4 * size + 2000000);
  if (data[0] & 2) weir_session_free(w.session);
  weir_producer_free(w.producer);
  weir_consumer_free(w.consumer);
  if (!(data[0] & 2)) weir_session_free(w.session);
  check(w.memory.live == 0);
  return 0;
}
