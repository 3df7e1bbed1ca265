/*
 * Fuzzes both ends of a subscription. Two sessions greet each other properly; then a peer that
 * knows yamux but says anything inside it takes the place of one of them, so that the bytes meet an
 * inlet (a consumer's end) or an outlet (a producer's). Whatever they are, the session must go on,
 * memory stay bounded, and messages arrive in order.
 *
 * Input: a byte that chooses the end and the cuts, then the bytes of the stream: a chunk length,
 * that many bytes, and so on; between two chunks the application does something.
 */

#include "core/inlet.h"
#include "core/session.h"
#include "support.h"

static const unsigned char NETWORK[WEIR_ID_SIZE] = {1}, NODE[WEIR_ID_SIZE] = {2},
                           PEER[WEIR_ID_SIZE] = {3}, STREAM[WEIR_ID_SIZE] = {4};

/* --- the peer --------------------------------------------------------------------------------- */

static weir_yamux_stream *theirs; /* the stream of the subscription; NULL once it is gone */
static unsigned streams;

static weir_status on_stream(weir_yamux *yamux, weir_yamux_stream *stream, void *user) {
  (void)yamux;
  (void)user;
  if (streams++ == 1) theirs = stream; /* the first is the control stream */
  weir_yamux_accept(stream);
  return WEIR_OK;
}

static void on_close(weir_yamux_stream *stream, weir_status reason, void *user) {
  (void)reason;
  (void)user;
  if (stream == theirs) theirs = NULL;
}

static const weir_yamux_handler HANDLER = {.on_stream = on_stream, .on_close = on_close};

typedef struct world {
  counted_memory memory;
  weir_hub hub;
  weir_session *session;
  weir_yamux *peer;
  weir_producer *producer;
  weir_consumer *consumer;
  uint32_t random;
  uint64_t epoch, next; /* of what was taken */
} world;

static void move(world *w, weir_endpoint *from, weir_endpoint *to) {
  weir_iov iov[8];
  while (from->output(from, iov, 8, w->hub.now) > 0) {
    w->random = w->random * 1664525 + 1013904223;
    size_t len = 1 + (w->random >> 20);
    if (len > iov[0].len) len = iov[0].len;
    check(to->feed(to, iov[0].base, len, w->hub.now) == WEIR_OK);
    from->sent(from, len);
  }
}

static void talk(world *w) {
  for (int i = 0; i < 4; i++) {
    move(w, weir_yamux_endpoint(w->peer), weir_session_endpoint(w->session));
    move(w, weir_session_endpoint(w->session), weir_yamux_endpoint(w->peer));
  }
}

static void say(weir_yamux_stream *stream, const void *bytes, size_t len) {
  const weir_slice slice = {NULL, bytes, len};
  if (stream != NULL) (void)weir_yamux_write(stream, slice);
}

static void greet(world *w, bool client) {
  static weir_frame_buffer frame;
  weir_session_config config = {.client = client};
  memcpy(config.network, NETWORK, WEIR_ID_SIZE);
  memcpy(config.node, NODE, WEIR_ID_SIZE);
  w->session = weir_session_new(&w->memory.alloc, &w->hub, &config);
  const weir_yamux_config yamux = {.client = !client};
  w->peer = weir_yamux_new(NULL, &yamux, &HANDLER, NULL);
  static weir_hello hello = {.version_min = 1, .version_max = 1};
  memcpy(hello.network, NETWORK, WEIR_ID_SIZE);
  memcpy(hello.node, PEER, WEIR_ID_SIZE);
  check(weir_write_hello(&frame, &hello) == WEIR_OK);
  weir_yamux_stream *control;
  if (client) {
    streams = 1; /* answer on what becomes `theirs` for a moment */
    talk(w);
    control = theirs;
    theirs = NULL;
    streams = 1;
  } else {
    check(weir_yamux_open(w->peer, &control) == WEIR_OK);
  }
  say(control, frame.bytes, frame.len);
  talk(w);
  check(weir_session_peer(w->session) != NULL);
}

/* --- what the application does ---------------------------------------------------------------- */

static void take(world *w, unsigned count) {
  weir_item item;
  while (count-- > 0 && weir_consumer_peek(w->consumer, &item) == WEIR_OK) {
    if (w->next != 0) check(item.epoch == w->epoch && item.sequence >= w->next);
    w->epoch = item.epoch;
    w->next = item.sequence + 1;
    unsigned char sum = 0;
    for (size_t i = 0; i < item.len; i++)
      sum ^= item.payload[i];
    (void)*(volatile unsigned char *)&sum;
    weir_consumer_pop(w->consumer, &item);
  }
  while (weir_consumer_next_change(w->consumer) != NULL) {
  }
}

static void act(world *w, uint8_t choice) {
  if (w->consumer != NULL) take(w, choice % 4);
  if (w->producer != NULL) {
    for (unsigned i = choice % 3; i > 0; i--)
      (void)weir_producer_send(w->producer, NETWORK, choice % WEIR_ID_SIZE);
    if (choice % 7 == 0) (void)weir_producer_sync(w->producer);
  }
}

static void play(world *w, const uint8_t *data, size_t size) {
  while (size > 0) {
    size_t len = data[0] < size - 1 ? data[0] : size - 1;
    say(theirs, data + 1, len);
    talk(w);
    act(w, data[0]);
    talk(w);
    data += 1 + len;
    size -= 1 + len;
  }
}

static void play_producer(world *w, const uint8_t *data, size_t size) {
  greet(w, true);
  w->consumer = weir_consumer_new(
      &w->memory.alloc, &w->hub,
      &(weir_consumer_config){.max_items = 8, .max_bytes = 4096, .max_message = 20000});
  weir_subscribe subscribe = {.has_resume = false};
  memcpy(subscribe.stream, STREAM, WEIR_ID_SIZE);
  weir_inlet *inlet;
  check(weir_session_subscribe(w->session, w->consumer, &subscribe, &inlet) == WEIR_OK);
  talk(w);
  check(theirs != NULL);
  play(w, data, size);
}

static void play_consumer(world *w, const uint8_t *data, size_t size) {
  static weir_frame_buffer frame;
  greet(w, false);
  w->producer = weir_producer_new(
      &w->memory.alloc, &w->hub,
      &(weir_producer_config){.epoch = 5, .max_items = 16, .lag = WEIR_LAG_BLOCK});
  w->producer->online = true;
  weir_subscribe subscribe = {.version = 1, .credit_bytes = 100, .credit_items = 3};
  memcpy(subscribe.network, NETWORK, WEIR_ID_SIZE);
  check(weir_write_subscribe(&frame, &subscribe) == WEIR_OK);
  check(weir_yamux_open(w->peer, &theirs) == WEIR_OK);
  say(theirs, frame.bytes, frame.len);
  talk(w);
  const weir_request *request = weir_session_next_request(w->session);
  uint64_t id;
  check(request != NULL);
  check(weir_session_accept(w->session, request->id, w->producer, (weir_slice){0}, (weir_slice){0},
                            &id) == WEIR_OK);
  play(w, data, size);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  if (size < 1) return 0;
  world w = {.random = data[0]};
  weir_hub_init(&w.hub);
  w.hub.now = 1;
  theirs = NULL;
  streams = 0;
  counted_init(&w.memory);
  if (data[0] % 2 == 0) {
    play_producer(&w, data + 1, size - 1);
  } else {
    play_consumer(&w, data + 1, size - 1);
  }
  uint32_t code;
  const char *reason;
  check(!weir_session_ended(w.session, &code, &reason)); /* only the subscription may end */
  check(w.memory.most < 300000);
  weir_producer_free(w.producer);
  weir_consumer_free(w.consumer);
  weir_session_free(w.session);
  weir_yamux_free(w.peer);
  check(w.memory.live == 0);
  return 0;
}
