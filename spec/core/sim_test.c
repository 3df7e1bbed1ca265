/*
 * The simulator: three nodes, the links between them, producers, and local and remote consumers,
 * all in virtual time and driven by a seed. Links delay, cut bytes at random places, stall, break
 * and are made again; readers are fast, slow or asleep for a while; producers block or disconnect.
 *
 * Invariants, checked at each step or at the end:
 *
 *   - from one subscription, sequences come in order and none twice; a payload is that of its
 * sequence
 *   - a sequence that is skipped, also between two subscriptions of which the second resumed, was
 *     reported as missed
 *   - under WEIR_LAG_BLOCK no subscription is ever closed for being slow
 *   - a subscription that was open all the time until the end delivered everything since its start
 *   - rings, inlets and memory stay within their bounds; nothing is left at the end
 *
 *   sim_test            seeds 1 to 200
 *   sim_test 7          seed 7 alone
 *   sim_test 1 100000   these seeds
 */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

#include "core/bytes.h"
#include "core/time.h"
#include "nodes.h"

enum {
  NODES = 3,
  LINKS = 3,
  PRODUCERS = 4,
  READERS = 8,
  STEPS = 400,
  RING = 64,
  WINDOW = 32,
  PIPE = 1 << 18
};

static uint64_t seed; /* of the run under way, for whoever reads a failure */

#define require(condition)                                                                \
  do {                                                                                    \
    if (!(condition)) {                                                                   \
      (void)fprintf(stderr, "seed %llu: %s:%d: %s\n", (unsigned long long)seed, __FILE__, \
                    __LINE__, #condition);                                                \
      abort();                                                                            \
    }                                                                                     \
  } while (0)

/* One direction of a link: bytes that are under way. */
typedef struct pipe_end {
  unsigned char bytes[PIPE];
  size_t len;
  uint64_t stalled_until;
} pipe_end;

typedef struct link {
  int left, right;          /* nodes; left connects */
  weir_session *session[2]; /* NULL while it is down */
  pipe_end *pipe[2];        /* from left, from right */
  uint64_t up_at;           /* when it is made again */
} link;

typedef struct source {
  int node;
  weir_producer *producer;
  weir_lag lag;
  unsigned char id[WEIR_ID_SIZE];
} source;

/* What a reader knows of its one subscription. */
typedef struct sink {
  int node, source;
  weir_consumer *consumer;
  uint32_t inlet; /* 0: none */
  bool started, remote;
  uint64_t first, next; /* the position at its start; the sequence that must come at the earliest */
  uint64_t skipped;     /* between those that came */
  uint64_t resume;      /* where it asked to go on; UINT64_MAX: it did not */
  uint64_t asleep_until;
  unsigned appetite; /* messages a step */
  uint64_t last;     /* of all subscriptions: nothing before it ever comes again */
} sink;

typedef struct sim {
  weir_test_alloc memory;
  weir_hub hub;
  uint64_t random;
  link links[LINKS];
  source sources[PRODUCERS];
  sink sinks[READERS];
  unsigned long delivered, closed;
} sim;

static uint64_t roll(sim *s, uint64_t sides) { return weir_test_random(&s->random) % sides; }

static void node_id(unsigned char *id, int node) { memset(id, 0x10 + node, WEIR_ID_SIZE); }

/* --- links ------------------------------------------------------------------------------------ */

static void connect_link(sim *s, link *l) {
  for (int side = 0; side < 2; side++) {
    weir_session_config config = {.client = side == 0};
    memset(config.network, 0x77, WEIR_ID_SIZE);
    node_id(config.node, side == 0 ? l->left : l->right);
    l->session[side] = weir_session_new(&s->memory.alloc, &s->hub, &config);
    require(l->session[side] != NULL);
    l->pipe[side]->len = 0;
    l->pipe[side]->stalled_until = 0;
  }
}

static void break_link(sim *s, link *l) {
  for (int side = 0; side < 2; side++) {
    weir_endpoint *endpoint = weir_session_endpoint(l->session[side]);
    endpoint->ended(endpoint, roll(s, 2) ? WEIR_OK : WEIR_E_RESET);
    weir_session_free(l->session[side]);
    l->session[side] = NULL;
  }
  l->up_at = s->hub.now + (1 + roll(s, 200)) * WEIR_MILLISECOND;
}

/* A little of what is to be written goes into the pipe; a little of what is in it arrives. */
static void carry(sim *s, link *l, int side) {
  pipe_end *pipe = l->pipe[side];
  weir_endpoint *from = weir_session_endpoint(l->session[side]);
  weir_endpoint *to = weir_session_endpoint(l->session[1 - side]);
  if (s->hub.now < pipe->stalled_until) return;
  if (roll(s, 150) == 0) pipe->stalled_until = s->hub.now + roll(s, 300) * WEIR_MILLISECOND;
  size_t room = (size_t)roll(s, 4000);
  if (room > PIPE - pipe->len) room = PIPE - pipe->len;
  pipe->len += take_output(from, pipe->bytes + pipe->len, room, s->hub.now);
  size_t arrives = pipe->len == 0 ? 0 : (size_t)roll(s, pipe->len + 1);
  if (roll(s, 3) == 0) arrives = pipe->len;
  for (size_t at = 0; at < arrives;) {
    size_t len = 1 + (size_t)roll(s, 600);
    if (len > arrives - at) len = arrives - at;
    require(feed_piece(to, pipe->bytes + at, len, s->hub.now) == WEIR_OK);
    at += len;
  }
  memmove(pipe->bytes, pipe->bytes + arrives, pipe->len - arrives);
  pipe->len -= arrives;
}

static source *find_source(sim *s, int node, const unsigned char *id) {
  for (int i = 0; i < PRODUCERS; i++) {
    source *p = &s->sources[i];
    if (p->node == node && memcmp(p->id, id, WEIR_ID_SIZE) == 0) return p;
  }
  return NULL;
}

static void answer(sim *s, weir_session *session, int node) {
  const weir_request *request;
  while (roll(s, 4) != 0 && (request = weir_session_next_request(session)) != NULL) {
    source *p = find_source(s, node, request->subscribe.stream);
    uint64_t id;
    require(p != NULL);
    if (roll(s, 20) == 0) {
      require(weir_session_reject(session, request->id, WEIR_CLOSE_NO_CAPACITY, "") == WEIR_OK);
    } else {
      require(weir_session_accept(session, request->id, p->producer, (weir_slice){0},
                                  (weir_slice){0}, &id) == WEIR_OK);
    }
  }
}

static void run_link(sim *s, link *l) {
  if (l->session[0] == NULL) {
    if (s->hub.now >= l->up_at) connect_link(s, l);
    return;
  }
  for (int side = 0; side < 2; side++) {
    weir_endpoint *endpoint = weir_session_endpoint(l->session[side]);
    uint32_t code;
    const char *reason;
    require(endpoint->tick(endpoint, s->hub.now) == WEIR_OK);
    require(!weir_session_ended(l->session[side], &code, &reason));
    carry(s, l, side);
    answer(s, l->session[side], side == 0 ? l->left : l->right);
  }
  if (roll(s, 250) == 0) break_link(s, l);
}

static weir_session *session_between(sim *s, int node, int peer) {
  for (int i = 0; i < LINKS; i++) {
    link *l = &s->links[i];
    if (l->left == node && l->right == peer) return l->session[0];
    if (l->right == node && l->left == peer) return l->session[1];
  }
  return NULL;
}

/* --- producers -------------------------------------------------------------------------------- */

/* A payload that says which message it is: its source, its sequence, and a length from these. */
static size_t payload_of(int index, uint64_t sequence, unsigned char *out) {
  const size_t len = 12 + (size_t)((sequence * 7919) % (sequence % 50 == 0 ? 9000 : 120));
  memset(out, (int)(sequence & 0xff), len);
  weir_put_u32(out, (uint32_t)index);
  weir_put_u64(out + 4, sequence);
  return len;
}

static void run_source(sim *s, int index) {
  source *p = &s->sources[index];
  weir_producer *producer = p->producer;
  static unsigned char payload[16384];
  for (uint64_t n = roll(s, 12); n > 0; n--) {
    const size_t len = payload_of(index, producer->head, payload);
    const uint64_t head = producer->head;
    weir_status status = weir_producer_send(producer, payload, len);
    require(producer->head == head + (status == WEIR_OK));
    require(status == WEIR_OK || status == WEIR_E_AGAIN);
    if (status == WEIR_E_AGAIN) break;
  }
  require(producer->head - producer->tail <= RING);
  if (producer->lag_deadline != 0 && s->hub.now >= producer->lag_deadline) {
    weir_producer_evict_slow(producer);
  }
  require(p->lag != WEIR_LAG_BLOCK || producer->evicted == 0);
  if (roll(s, 40) == 0) (void)weir_producer_sync(producer);
}

/* --- readers ---------------------------------------------------------------------------------- */

static void subscribe(sim *s, sink *r) {
  source *p = &s->sources[r->source];
  weir_inlet *inlet;
  r->started = false;
  r->skipped = 0;
  r->resume = UINT64_MAX;
  r->remote = p->node != r->node;
  if (!r->remote) {
    unsigned char id[WEIR_ID_SIZE];
    node_id(id, p->node);
    require(weir_consumer_attach(r->consumer, p->producer, id, &inlet) == WEIR_OK);
  } else {
    weir_session *session = session_between(s, r->node, p->node);
    if (session == NULL || weir_session_peer(session) == NULL) return;
    weir_subscribe request = {.has_resume = roll(s, 2) == 0 && r->last != 0};
    memcpy(request.stream, p->id, WEIR_ID_SIZE);
    request.resume_epoch = p->producer->config.epoch;
    request.resume_sequence = r->last;
    weir_status status = weir_session_subscribe(session, r->consumer, &request, &inlet);
    require(status == WEIR_OK || status == WEIR_E_CLOSED || status == WEIR_E_AGAIN);
    if (status != WEIR_OK) return;
    if (request.has_resume) r->resume = r->last;
  }
  r->inlet = inlet->id;
}

static void note_start(sink *r, const weir_inlet *inlet) {
  if (r->started || inlet->state == WEIR_INLET_OPENING || inlet->since == 0) return;
  r->started = true;
  r->first = r->next = inlet->next_sequence;
  require(r->first >= r->last || inlet->messages > 0);
}

/* What the subscription must have reported as missed by now. */
static uint64_t holes(const sink *r) {
  return r->skipped + (r->resume < r->first ? r->first - r->resume : 0);
}

static void take_one(sim *s, sink *r, const weir_item *item) {
  static unsigned char expected[16384];
  require(item->inlet->id == r->inlet);
  note_start(r, item->inlet);
  require(item->sequence >= r->next);
  require(item->sequence >= r->last);
  r->skipped += item->sequence - r->next;
  require(holes(r) <= item->inlet->missed);
  require(item->len == payload_of(r->source, item->sequence, expected));
  require(memcmp(item->payload, expected, item->len) == 0);
  r->next = r->last = item->sequence + 1;
  s->delivered++;
}

static void note_changes(sim *s, sink *r) {
  const weir_inlet *inlet;
  while ((inlet = weir_consumer_next_change(r->consumer)) != NULL) {
    require(inlet->id == r->inlet);
    if (inlet->state != WEIR_INLET_CLOSED) note_start(r, inlet);
    if (inlet->state != WEIR_INLET_CLOSED) continue;
    s->closed++;
    const source *p = &s->sources[r->source];
    require(inlet->close_code == WEIR_CLOSE_UNEXPECTED ||
            inlet->close_code == WEIR_CLOSE_NO_CAPACITY ||
            inlet->close_code == WEIR_CLOSE_CANCELLED ||
            (inlet->close_code == WEIR_CLOSE_TOO_SLOW && p->lag == WEIR_LAG_DISCONNECT));
    require(r->remote || inlet->close_code != WEIR_CLOSE_UNEXPECTED);
  }
}

static void run_sink(sim *s, sink *r) {
  note_changes(s, r);
  if (r->inlet != 0 && weir_consumer_find(r->consumer, r->inlet) == NULL) r->inlet = 0;
  if (r->inlet == 0 && roll(s, 5) == 0) subscribe(s, r);
  if (roll(s, 100) == 0) r->asleep_until = s->hub.now + roll(s, 400) * WEIR_MILLISECOND;
  if (r->inlet != 0) {
    weir_inlet *inlet = weir_consumer_find(r->consumer, r->inlet);
    weir_inlet_gauge gauge;
    inlet->type->gauge(inlet, &gauge);
    require(gauge.queued_items <= (r->remote ? WINDOW : RING));
    if (roll(s, 400) == 0) weir_inlet_close(inlet, WEIR_CLOSE_CANCELLED, "enough");
  }
  if (s->hub.now < r->asleep_until) return;
  weir_item item;
  for (uint64_t n = roll(s, r->appetite); n > 0; n--) {
    if (weir_consumer_peek(r->consumer, &item) != WEIR_OK) break;
    take_one(s, r, &item);
    weir_consumer_pop(r->consumer, &item);
  }
}

/* --- a run ------------------------------------------------------------------------------------ */

static void build(sim *s) {
  static const int ENDS[LINKS][2] = {{0, 1}, {1, 2}, {2, 0}};
  weir_test_alloc_init(&s->memory);
  weir_hub_init(&s->hub);
  s->hub.now = WEIR_SECOND;
  s->random = seed * UINT64_C(0x9e3779b97f4a7c15) + 1;
  for (int i = 0; i < LINKS; i++) {
    s->links[i].left = ENDS[i][0];
    s->links[i].right = ENDS[i][1];
    connect_link(s, &s->links[i]);
  }
  for (int i = 0; i < PRODUCERS; i++) {
    source *p = &s->sources[i];
    p->node = (int)roll(s, NODES);
    p->lag = roll(s, 2) ? WEIR_LAG_BLOCK : WEIR_LAG_DISCONNECT;
    memset(p->id, 0xa0 + i, WEIR_ID_SIZE);
    const weir_producer_config config = {.epoch = 1 + roll(s, 100),
                                         .max_items = 1 + (uint32_t)roll(s, RING),
                                         .max_bytes = 1 + (size_t)roll(s, 50000),
                                         .lag = p->lag};
    p->producer = weir_producer_new(&s->memory.alloc, &s->hub, &config);
    p->producer->online = true;
  }
  for (int i = 0; i < READERS; i++) {
    sink *r = &s->sinks[i];
    r->node = (int)roll(s, NODES);
    r->source = (int)roll(s, PRODUCERS);
    r->appetite = 1 + (unsigned)roll(s, 40);
    const weir_consumer_config config = {.max_items = 1 + (uint32_t)roll(s, WINDOW),
                                         .max_bytes = 1 + (size_t)roll(s, 50000)};
    r->consumer = weir_consumer_new(&s->memory.alloc, &s->hub, &config);
  }
}

/* Links stay up, producers stop, readers wake: what was sent must arrive. */
static void settle(sim *s) {
  for (int step = 0; step < 3000; step++) {
    s->hub.now += WEIR_MILLISECOND;
    for (int i = 0; i < LINKS; i++) {
      link *l = &s->links[i];
      for (int side = 0; l->session[0] != NULL && side < 2; side++) {
        l->pipe[side]->stalled_until = 0;
        carry(s, l, side);
        answer(s, l->session[side], side == 0 ? l->left : l->right);
      }
    }
    bool busy = false;
    for (int i = 0; i < READERS; i++) {
      sink *r = &s->sinks[i];
      weir_item item;
      note_changes(s, r);
      while (weir_consumer_peek(r->consumer, &item) == WEIR_OK) {
        take_one(s, r, &item);
        weir_consumer_pop(r->consumer, &item);
      }
      const weir_inlet *inlet = r->inlet == 0 ? NULL : weir_consumer_find(r->consumer, r->inlet);
      if (inlet == NULL || inlet->state == WEIR_INLET_CLOSED) continue;
      busy = busy || inlet->state == WEIR_INLET_OPENING || inlet->missed < holes(r) ||
             r->next != s->sources[r->source].producer->head;
    }
    if (!busy) return;
  }
  require(!"the network did not settle");
}

static void check_end(sim *s) {
  for (int i = 0; i < READERS; i++) {
    const sink *r = &s->sinks[i];
    const weir_inlet *inlet = r->inlet == 0 ? NULL : weir_consumer_find(r->consumer, r->inlet);
    if (inlet == NULL || inlet->state != WEIR_INLET_OPEN || !r->started) continue;
    /* Everything since the start, and no hole inside; what a resume missed lies before it. */
    require(r->next == s->sources[r->source].producer->head);
    require(r->skipped == 0);
    require(inlet->missed == holes(r));
    require(inlet->messages == r->next - r->first);
  }
  require(s->memory.peak < 4u << 20);
}

static void clear(sim *s) {
  for (int i = 0; i < READERS; i++)
    weir_consumer_free(s->sinks[i].consumer);
  for (int i = 0; i < PRODUCERS; i++)
    weir_producer_free(s->sources[i].producer);
  for (int i = 0; i < LINKS; i++) {
    weir_session_free(s->links[i].session[0]);
    weir_session_free(s->links[i].session[1]);
  }
  require(s->memory.blocks == 0);
}

static pipe_end pipes[LINKS][2];

static unsigned long run(uint64_t with) {
  sim s = {.delivered = 0};
  seed = with;
  for (int i = 0; i < LINKS; i++) {
    for (int side = 0; side < 2; side++)
      s.links[i].pipe[side] = &pipes[i][side];
  }
  build(&s);
  for (int step = 0; step < STEPS; step++) {
    s.hub.now += (1 + roll(&s, 5)) * WEIR_MILLISECOND;
    s.hub.time = s.hub.now / 1000;
    for (int i = 0; i < LINKS; i++)
      run_link(&s, &s.links[i]);
    for (int i = 0; i < PRODUCERS; i++)
      run_source(&s, i);
    for (int i = 0; i < READERS; i++)
      run_sink(&s, &s.sinks[i]);
  }
  settle(&s);
  check_end(&s);
  clear(&s);
  return s.delivered;
}

int main(int argc, char **argv) {
  const uint64_t first = argc > 1 ? strtoull(argv[1], NULL, 10) : 1;
  const uint64_t last = argc > 2 ? strtoull(argv[2], NULL, 10) : argc > 1 ? first : 200;
  unsigned long delivered = 0;
  for (uint64_t n = first; n <= last; n++)
    delivered += run(n);
  const unsigned long again = run(first);
  printf("seeds %llu to %llu: %lu messages delivered\n", (unsigned long long)first,
         (unsigned long long)last, delivered);
  if (first == last) require(again == delivered); /* a seed is a run */
  return delivered > (last - first) * 10 ? 0 : 1;
}
