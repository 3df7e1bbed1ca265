#include "core/session.h"

#include <stdio.h>

#include "core/frame.h"
#include "core/outlet.h"
#include "core/time.h"
#include "nodes.h"

#define EPOCH 7u

static const unsigned char NETWORK[WEIR_ID_SIZE] = "the network's id, of 32 bytes...";
static const unsigned char ELSEWHERE[WEIR_ID_SIZE] = "another network's id............";
static const unsigned char ALICE[WEIR_ID_SIZE] = "alice, the side that connects...";
static const unsigned char BOB[WEIR_ID_SIZE] = "bob, the side that listens......";
static const unsigned char STREAM[WEIR_ID_SIZE] = "a stream's id...................";

/* --- two sessions ----------------------------------------------------------------------------- */

typedef struct world {
  weir_test_alloc *memory;
  weir_hub hub;
  weir_session *alice, *bob; /* alice connects; NULL where the peer is made by hand */
  raw_peer *raw;
  weir_producer *producer; /* of the side that serves */
  weir_consumer *consumer; /* of the side that reads */
  weir_inlet *inlet;
  uint64_t random;
  size_t cut;
  weir_status fed; /* what feed() last said where it failed */
} world;

static weir_session_config config_of(bool client) {
  weir_session_config config = {.client = client};
  memcpy(config.network, NETWORK, WEIR_ID_SIZE);
  memcpy(config.node, client ? ALICE : BOB, WEIR_ID_SIZE);
  return config;
}

static void set_up(world *w, weir_test_alloc *memory) {
  *w = (world){.memory = memory, .random = 88172645463325252u};
  weir_hub_init(&w->hub);
  w->hub.now = WEIR_SECOND;
  w->hub.time = 1700000000u * UINT64_C(1000000);
}

static weir_session *make_session(world *w, const weir_session_config *config) {
  weir_session *session = weir_session_new(&w->memory->alloc, &w->hub, config);
  if (session != NULL) assert_int_equal(weir_session_source(session)->pending, 0);
  return session;
}

static weir_endpoint *left(const world *w) {
  return w->alice != NULL ? weir_session_endpoint(w->alice) : weir_yamux_endpoint(w->raw->yamux);
}

static weir_endpoint *right(const world *w) {
  return w->bob != NULL ? weir_session_endpoint(w->bob) : weir_yamux_endpoint(w->raw->yamux);
}

/* Lets both sides talk until neither has anything to say. */
static void talk(world *w) {
  size_t moved;
  do {
    weir_status status;
    moved = move_bytes(left(w), right(w), w->hub.now, w->cut, &w->random, &status);
    if (status != WEIR_OK) w->fed = status;
    moved += move_bytes(right(w), left(w), w->hub.now, w->cut, &w->random, &status);
    if (status != WEIR_OK) w->fed = status;
  } while (moved > 0);
}

static void connect_nodes(world *w) {
  weir_session_config alice = config_of(true), bob = config_of(false);
  w->alice = make_session(w, &alice);
  w->bob = make_session(w, &bob);
  assert_non_null(w->alice);
  assert_non_null(w->bob);
  talk(w);
}

static void tear_down(world *w) {
  weir_producer_free(w->producer);
  weir_consumer_free(w->consumer);
  weir_session_free(w->alice);
  weir_session_free(w->bob);
  if (w->raw != NULL) raw_free(w->raw);
  assert_null(weir_list_first(&w->hub.ready));
}

/* A test made with this gets a world as its state, in the memory of a memory_test. */
#define world_test(name) cmocka_unit_test_setup_teardown(name, make_world, end_world)

static int make_world(void **state) {
  world *w = malloc(sizeof *w);
  if (w == NULL || weir_test_set_up(state) != 0) {
    free(w);
    return -1;
  }
  set_up(w, *state);
  *state = w;
  return 0;
}

static int end_world(void **state) {
  world *w = *state;
  tear_down(w);
  *state = w->memory;
  free(w);
  return weir_test_tear_down(state);
}

/* Ends the world of a test, and begins another. */
static world *anew(void **state) {
  world *w = *state;
  tear_down(w);
  set_up(w, w->memory);
  return w;
}

static uint32_t events(weir_source *source) {
  const uint32_t bits = source->pending;
  weir_source_clear(source);
  return bits;
}

static void assert_ended(const weir_session *session, uint32_t code, const char *reason) {
  uint32_t got;
  const char *text;
  assert_true(weir_session_ended(session, &got, &text));
  assert_int_equal(got, code);
  if (reason != NULL) assert_string_equal(text, reason);
}

static void assert_alive(const weir_session *session) {
  uint32_t code;
  const char *text;
  assert_false(weir_session_ended(session, &code, &text));
}

static void make_producer(world *w, const weir_producer_config *config) {
  w->producer = weir_producer_new(&w->memory->alloc, &w->hub, config);
  assert_non_null(w->producer);
  w->producer->online = true;
}

static void make_consumer(world *w, const weir_consumer_config *config) {
  w->consumer = weir_consumer_new(&w->memory->alloc, &w->hub, config);
  assert_non_null(w->consumer);
}

static weir_subscribe request_for(const unsigned char *stream) {
  weir_subscribe subscribe = {.codec = {NULL, (const unsigned char *)"raw", 3}};
  memcpy(subscribe.stream, stream, WEIR_ID_SIZE);
  return subscribe;
}

static void accept_with(weir_session *session, weir_producer *producer) {
  const weir_request *request = weir_session_next_request(session);
  assert_non_null(request);
  uint64_t id;
  assert_ok(weir_session_accept(session, request->id, producer, request->subscribe.codec,
                                request->subscribe.schema, &id));
}

/* Alice reads what Bob produces. */
static void subscribe_with(world *w, weir_subscribe subscribe) {
  assert_ok(weir_session_subscribe(w->alice, w->consumer, &subscribe, &w->inlet));
  talk(w);
  accept_with(w->bob, w->producer);
  talk(w);
  assert_int_equal(w->inlet->state, WEIR_INLET_OPEN);
}

static void stream_nodes(world *w, const weir_producer_config *producer,
                         const weir_consumer_config *consumer) {
  connect_nodes(w);
  make_producer(w, producer);
  make_consumer(w, consumer);
  subscribe_with(w, request_for(STREAM));
}

static void send_number(world *w, unsigned n) {
  assert_ok(weir_producer_send(w->producer, &n, sizeof n));
}

/* The next number, which must come with this sequence. */
static void expect_number(world *w, unsigned n, uint64_t sequence) {
  weir_item item;
  assert_ok(weir_consumer_peek(w->consumer, &item));
  assert_int_equal(item.len, sizeof n);
  assert_memory_equal(item.payload, &n, sizeof n);
  assert_int_equal(item.sequence, sequence);
  weir_consumer_pop(w->consumer, &item);
}

static void expect_nothing(world *w) {
  weir_item item;
  assert_status(weir_consumer_peek(w->consumer, &item), WEIR_E_AGAIN);
}

/* --- greeting --------------------------------------------------------------------------------- */

static void nodes_learn_of_each_other_however_the_bytes_are_cut(void **state) {
  const weir_slice tags[] = {{NULL, (const unsigned char *)"gpu", 3},
                             {NULL, (const unsigned char *)"eu", 2}};
  for (size_t cut = 0; cut < 30; cut++) {
    world *w = anew(state);
    w->cut = cut;
    weir_session_config alice = config_of(true), bob = config_of(false);
    alice.tags = tags;
    alice.tag_count = 2;
    alice.agent = (weir_slice){NULL, (const unsigned char *)"weir/0", 6};
    w->alice = make_session(w, &alice);
    w->bob = make_session(w, &bob);
    assert_null(weir_session_peer(w->bob));
    talk(w);
    assert_true(events(weir_session_source(w->alice)) & WEIR_SESSION_READY);
    assert_true(events(weir_session_source(w->bob)) & WEIR_SESSION_READY);
    const weir_hello *peer = weir_session_peer(w->bob);
    assert_memory_equal(peer->node, ALICE, WEIR_ID_SIZE);
    assert_int_equal(peer->tag_count, 2);
    assert_memory_equal(peer->tags[1].ptr, "eu", 2);
    assert_int_equal(peer->agent.len, 6);
    peer = weir_session_peer(w->alice);
    assert_memory_equal(peer->node, BOB, WEIR_ID_SIZE);
    assert_int_equal(peer->tag_count, 0);
  }
}

static void nodes_of_two_networks_part_with_wrong_network(void **state) {
  world *w = *state;
  weir_session_config alice = config_of(true), bob = config_of(false);
  memcpy(alice.network, ELSEWHERE, WEIR_ID_SIZE);
  w->alice = make_session(w, &alice);
  w->bob = make_session(w, &bob);
  talk(w);
  assert_ended(w->alice, WEIR_CLOSE_WRONG_NETWORK, "the two nodes are in different networks");
  assert_ended(w->bob, WEIR_CLOSE_WRONG_NETWORK, "the two nodes are in different networks");
  assert_true(left(w)->finished(left(w)));
  assert_true(right(w)->finished(right(w)));
}

static void a_node_that_connects_to_itself_is_told(void **state) {
  world *w = *state;
  weir_session_config alice = config_of(true), bob = config_of(false);
  memcpy(bob.node, ALICE, WEIR_ID_SIZE);
  w->alice = make_session(w, &alice);
  w->bob = make_session(w, &bob);
  talk(w);
  assert_ended(w->alice, WEIR_CLOSE_CANCELLED, "the node connected to itself");
  assert_ended(w->bob, WEIR_CLOSE_CANCELLED, "the node connected to itself");
}

/* --- a peer made by hand ---------------------------------------------------------------------- */

static weir_hello hello_of(bool client) {
  weir_hello hello = {.version_min = 1, .version_max = 1};
  memcpy(hello.network, NETWORK, WEIR_ID_SIZE);
  memcpy(hello.node, client ? ALICE : BOB, WEIR_ID_SIZE);
  return hello;
}

static void say_hello(raw_stream *control, const weir_hello *hello) {
  weir_frame_buffer frame;
  assert_ok(weir_write_hello(&frame, hello));
  raw_frame_out(control, &frame);
}

/* A connecting peer in front of Bob that has opened its control stream. */
static raw_stream *raw_client(world *w) {
  weir_session_config bob = config_of(false);
  w->bob = make_session(w, &bob);
  w->raw = raw_new(true);
  return raw_open(w->raw);
}

/* The same after both have greeted. */
static raw_stream *raw_friend(world *w) {
  raw_stream *control = raw_client(w);
  const weir_hello hello = hello_of(true);
  say_hello(control, &hello);
  talk(w);
  assert_non_null(weir_session_peer(w->bob));
  return control;
}

static void a_peer_of_another_version_is_told_so(void **state) {
  world *w = *state;
  raw_stream *control = raw_client(w);
  weir_hello hello = hello_of(true);
  hello.version_min = 2;
  hello.version_max = 9;
  say_hello(control, &hello);
  talk(w);
  assert_ended(w->bob, WEIR_CLOSE_BAD_VERSION, "no version of the protocol in common");
  assert_int_equal(raw_close_code(control), WEIR_CLOSE_BAD_VERSION);
}

static void a_peer_that_also_speaks_later_versions_is_answered_with_ours(void **state) {
  world *w = *state;
  raw_stream *control = raw_client(w);
  weir_hello hello = hello_of(true);
  hello.version_max = 9;
  say_hello(control, &hello);
  talk(w);
  const unsigned char *payload;
  size_t len;
  weir_hello answer;
  assert_int_equal(raw_frame(control, &payload, &len), WEIR_FRAME_HELLO);
  assert_ok(weir_read_hello(payload, len, &answer));
  assert_int_equal(answer.version_min, 1);
  assert_int_equal(answer.version_max, 1);
  assert_alive(w->bob);
}

static void bytes_that_are_not_yamux_end_the_session(void **state) {
  static const char HTTP[] = "GET / HTTP/1.1\r\nHost: example\r\n\r\n";
  world *w = *state;
  weir_session_config bob = config_of(false);
  w->bob = make_session(w, &bob);
  weir_endpoint *endpoint = weir_session_endpoint(w->bob);
  assert_status(endpoint->feed(endpoint, HTTP, sizeof HTTP - 1, w->hub.now), WEIR_E_VERSION);
  assert_ended(w->bob, WEIR_CLOSE_PROTOCOL, NULL);
  assert_int_equal(events(weir_session_source(w->bob)), WEIR_SESSION_ENDED);
  unsigned char bytes[64];
  assert_true(take_output(endpoint, bytes, sizeof bytes, w->hub.now) > 0);
  assert_true(endpoint->finished(endpoint));
}

static void garbage_on_the_control_stream_ends_the_session(void **state) {
  static const char *const GARBAGE[] = {"\0\0\0\10GARBAGE!", "\0\0\0\0", "\0\0\0\4\1\0\0\0",
                                        "\377\377\377\377"};
  static const size_t LENGTHS[] = {12, 4, 8, 4};
  for (size_t i = 0; i < 4; i++) {
    world *w = anew(state);
    raw_stream *control = raw_client(w);
    raw_write(control, GARBAGE[i], LENGTHS[i]);
    talk(w);
    assert_ended(w->bob, WEIR_CLOSE_PROTOCOL, NULL);
    assert_int_equal(raw_close_code(control), WEIR_CLOSE_PROTOCOL);
  }
}

static void a_peer_that_says_nothing_is_left_after_the_handshake_timeout(void **state) {
  world *w = *state;
  raw_client(w);
  talk(w);
  weir_endpoint *endpoint = weir_session_endpoint(w->bob);
  const uint64_t deadline = w->hub.now + 10 * WEIR_SECOND;
  assert_int_equal(endpoint->deadline(endpoint), deadline);
  w->hub.now = deadline - 1;
  assert_ok(endpoint->tick(endpoint, w->hub.now));
  assert_alive(w->bob);
  w->hub.now = deadline;
  assert_ok(endpoint->tick(endpoint, w->hub.now));
  assert_ended(w->bob, WEIR_CLOSE_TIMEOUT, "the peer did not say hello in time");
  talk(w);
  assert_true(endpoint->finished(endpoint));
}

static void a_transport_that_ends_during_the_greeting_ends_the_session(void **state) {
  world *w = *state;
  weir_session_config alice = config_of(true);
  w->alice = make_session(w, &alice);
  weir_endpoint *endpoint = weir_session_endpoint(w->alice);
  endpoint->ended(endpoint, WEIR_OK);
  assert_ended(w->alice, WEIR_CLOSE_UNEXPECTED, "the connection was lost");
  assert_true(endpoint->finished(endpoint));
}

static void a_control_stream_that_ends_or_is_reset_ends_the_session(void **state) {
  for (int reset = 0; reset < 2; reset++) {
    world *w = anew(state);
    raw_stream *control = raw_friend(w);
    if (reset) {
      weir_yamux_reset(control->stream);
    } else {
      weir_yamux_shutdown(control->stream);
    }
    talk(w);
    assert_ended(w->bob, WEIR_CLOSE_UNEXPECTED, NULL);
  }
}

static void a_go_away_for_an_error_ends_the_session(void **state) {
  world *w = *state;
  raw_friend(w);
  weir_yamux_go_away(w->raw->yamux, WEIR_YAMUX_INTERNAL_ERROR);
  talk(w);
  assert_ended(w->bob, WEIR_CLOSE_PROTOCOL, "the peer ended the session with an error");
  weir_endpoint *endpoint = weir_session_endpoint(w->bob);
  assert_true(endpoint->finished(endpoint));
}

static void a_session_that_is_closed_tells_its_peer_why(void **state) {
  world *w = *state;
  connect_nodes(w);
  weir_session_close(w->alice, WEIR_CLOSE_SHUTDOWN, "the node was closed");
  weir_session_close(w->alice, WEIR_CLOSE_PROTOCOL, "only the first close counts");
  talk(w);
  assert_ended(w->alice, WEIR_CLOSE_SHUTDOWN, "the node was closed");
  assert_ended(w->bob, WEIR_CLOSE_SHUTDOWN, "the node was closed");
  assert_true(left(w)->finished(left(w)));
  assert_true(right(w)->finished(right(w)));
}

static void an_unknown_control_frame_is_skipped_if_it_may_be(void **state) {
  world *w = *state;
  raw_stream *control = raw_friend(w);
  raw_write(control, "\0\0\0\7\200\0\0\0abc", 11);
  talk(w);
  assert_alive(w->bob);
  raw_write(control, "\0\0\0\7\177\0\0\0abc", 11);
  talk(w);
  assert_ended(w->bob, WEIR_CLOSE_PROTOCOL, "malformed control frame");
}

static void too_many_or_too_long_tags_are_refused_at_home(void **state) {
  world *w = *state;
  weir_slice tags[WEIR_MAX_TAGS + 1];
  for (size_t i = 0; i <= WEIR_MAX_TAGS; i++)
    tags[i] = (weir_slice){NULL, NETWORK, 32};
  weir_session_config config = config_of(true);
  config.tags = tags;
  config.tag_count = WEIR_MAX_TAGS + 1;
  assert_null(make_session(w, &config));
  static const unsigned char LONG[WEIR_MAX_NAME + 1] = {0};
  tags[0] = (weir_slice){NULL, LONG, sizeof LONG};
  config.tag_count = 1;
  assert_null(make_session(w, &config));
}

/* --- announcements ---------------------------------------------------------------------------- */

static void number_id(unsigned char *id, unsigned n) {
  memset(id, 0, WEIR_ID_SIZE);
  weir_put_u32(id, n);
}

static void announcements_arrive_in_order_in_both_directions(void **state) {
  enum {
    COUNT = 3000
  };
  world *w = *state;
  w->cut = 700;
  connect_nodes(w);
  unsigned char *ids = malloc((size_t)COUNT * WEIR_ID_SIZE), id[WEIR_ID_SIZE];
  for (unsigned i = 0; i < COUNT; i++)
    number_id(ids + (size_t)i * WEIR_ID_SIZE, i);
  assert_int_equal(weir_session_announce(w->alice, true, ids, COUNT), COUNT);
  assert_int_equal(weir_session_announce(w->alice, false, ids, 1), 1);
  assert_int_equal(weir_session_announce(w->bob, true, ids + WEIR_ID_SIZE, 1), 1);
  talk(w);
  bool add;
  for (unsigned i = 0; i < COUNT; i++) {
    assert_true(weir_session_next_announcement(w->bob, &add, id));
    assert_true(add);
    assert_int_equal(weir_get_u32(id), i);
  }
  assert_true(weir_session_next_announcement(w->bob, &add, id));
  assert_false(add);
  assert_false(weir_session_next_announcement(w->bob, &add, id));
  assert_true(weir_session_next_announcement(w->alice, &add, id));
  assert_int_equal(weir_get_u32(id), 1);
  free(ids);
}

static void announcing_waits_for_a_peer_that_does_not_read(void **state) {
  enum {
    COUNT = 20000
  };
  world *w = *state;
  connect_nodes(w);
  unsigned char *ids = calloc(COUNT, WEIR_ID_SIZE), id[WEIR_ID_SIZE];
  for (unsigned i = 0; i < COUNT; i++)
    number_id(ids + (size_t)i * WEIR_ID_SIZE, i);
  size_t taken = weir_session_announce(w->alice, true, ids, COUNT);
  assert_true(taken < COUNT);
  assert_true(w->memory->bytes < 1024 * 1024);
  unsigned expected = 0;
  bool add;
  for (;;) {
    events(weir_session_source(w->alice));
    talk(w);
    while (weir_session_next_announcement(w->bob, &add, id))
      assert_int_equal(weir_get_u32(id), expected++);
    if (taken == COUNT) break;
    assert_true(events(weir_session_source(w->alice)) & WEIR_SESSION_WRITABLE);
    taken += weir_session_announce(w->alice, true, ids + taken * WEIR_ID_SIZE, COUNT - taken);
  }
  assert_int_equal(expected, COUNT);
  free(ids);
}

static void nothing_is_announced_before_the_greeting(void **state) {
  world *w = *state;
  weir_session_config alice = config_of(true);
  w->alice = make_session(w, &alice);
  assert_int_equal(weir_session_announce(w->alice, true, STREAM, 1), 0);
}

static void a_flood_of_announcements_ends_the_session_in_bounded_memory(void **state) {
  world *w = *state;
  raw_stream *control = raw_friend(w);
  weir_frame_buffer frame;
  static unsigned char ids[400 * WEIR_ID_SIZE];
  const size_t fit = weir_write_announce(&frame, true, ids, 400);
  for (unsigned sent = 0; sent < 3000 && control->stream != NULL; sent++) {
    /* At first many ids in few frames, then few in many. */
    if (sent == 30) weir_write_announce(&frame, true, ids, 1);
    raw_frame_out(control, &frame);
    talk(w);
  }
  assert_int_equal(fit, 400);
  assert_ended(w->bob, WEIR_CLOSE_PROTOCOL, "a control frame or its number is over the limit");
  assert_true(w->memory->peak < 3 * 1024 * 1024);
}

static void a_malformed_announcement_ends_the_session(void **state) {
  world *w = *state;
  raw_stream *control = raw_friend(w);
  weir_frame_buffer frame;
  weir_write_announce(&frame, true, STREAM, 1);
  frame.bytes[WEIR_PREAMBLE] = 9; /* no such operation */
  raw_frame_out(control, &frame);
  talk(w);
  bool add;
  unsigned char id[WEIR_ID_SIZE];
  assert_false(weir_session_next_announcement(w->bob, &add, id));
  assert_ended(w->bob, WEIR_CLOSE_PROTOCOL, "malformed control frame");
}

/* --- subscribing ------------------------------------------------------------------------------ */

static void messages_flow_both_ways_however_the_bytes_are_cut(void **state) {
  for (size_t cut = 0; cut < 400; cut = cut * 2 + 3) {
    world *w = anew(state);
    w->cut = cut;
    stream_nodes(w, &(weir_producer_config){.epoch = EPOCH}, &(weir_consumer_config){0});
    /* And Alice produces for Bob. */
    weir_producer *producer =
        weir_producer_new(&w->memory->alloc, &w->hub, &(weir_producer_config){.epoch = EPOCH + 1});
    weir_consumer *consumer =
        weir_consumer_new(&w->memory->alloc, &w->hub, &(weir_consumer_config){0});
    producer->online = true;
    weir_inlet *inlet;
    weir_subscribe subscribe = request_for(ELSEWHERE);
    assert_ok(weir_session_subscribe(w->bob, consumer, &subscribe, &inlet));
    talk(w);
    accept_with(w->alice, producer);
    for (unsigned i = 0; i < 500; i++) {
      send_number(w, i);
      assert_ok(weir_producer_send(producer, &i, sizeof i));
    }
    talk(w);
    weir_item item;
    for (unsigned i = 0; i < 500; i++) {
      expect_number(w, i, i);
      assert_ok(weir_consumer_peek(consumer, &item));
      assert_memory_equal(item.payload, &i, sizeof i);
      assert_int_equal(item.epoch, EPOCH + 1);
      assert_int_equal(item.time, w->hub.time);
      assert_memory_equal(item.inlet->node, ALICE, WEIR_ID_SIZE);
      weir_consumer_pop(consumer, &item);
    }
    expect_nothing(w);
    weir_producer_free(producer);
    weir_consumer_free(consumer);
  }
}

static void a_request_says_all_that_the_consumer_said(void **state) {
  world *w = *state;
  connect_nodes(w);
  make_consumer(w, &(weir_consumer_config){.max_items = 5, .max_bytes = 600});
  weir_subscribe subscribe = request_for(STREAM);
  subscribe.schema = (weir_slice){NULL, (const unsigned char *)"v2", 2};
  subscribe.criteria = (weir_slice){NULL, (const unsigned char *)"a > 1", 5};
  subscribe.token = (weir_slice){NULL, (const unsigned char *)"secret", 6};
  subscribe.has_resume = true;
  subscribe.resume_epoch = 3;
  subscribe.resume_sequence = 4;
  assert_ok(weir_session_subscribe(w->alice, w->consumer, &subscribe, &w->inlet));
  assert_int_equal(w->inlet->state, WEIR_INLET_OPENING);
  events(weir_session_source(w->bob));
  talk(w);
  assert_true(events(weir_session_source(w->bob)) & WEIR_SESSION_REQUEST);
  const weir_request *request = weir_session_next_request(w->bob);
  assert_non_null(request);
  assert_null(weir_session_next_request(w->bob));
  const weir_subscribe *got = &request->subscribe;
  assert_memory_equal(got->stream, STREAM, WEIR_ID_SIZE);
  assert_memory_equal(got->network, NETWORK, WEIR_ID_SIZE);
  assert_memory_equal(got->codec.ptr, "raw", 3);
  assert_memory_equal(got->schema.ptr, "v2", 2);
  assert_memory_equal(got->criteria.ptr, "a > 1", 5);
  assert_memory_equal(got->token.ptr, "secret", 6);
  assert_true(got->has_resume);
  assert_int_equal(got->resume_epoch, 3);
  assert_int_equal(got->resume_sequence, 4);
  assert_int_equal(got->credit_items, 5);
  assert_int_equal(got->credit_bytes, 600);
}

static void a_request_is_rejected_with_a_code_and_a_reason(void **state) {
  world *w = *state;
  connect_nodes(w);
  make_consumer(w, &(weir_consumer_config){0});
  weir_subscribe subscribe = request_for(STREAM);
  assert_ok(weir_session_subscribe(w->alice, w->consumer, &subscribe, &w->inlet));
  talk(w);
  const uint64_t id = weir_session_next_request(w->bob)->id;
  assert_ok(weir_session_reject(w->bob, id, WEIR_CLOSE_NO_CAPACITY, "full house"));
  assert_status(weir_session_reject(w->bob, id, 1, ""), WEIR_E_CLOSED);
  talk(w);
  const weir_inlet *inlet = weir_consumer_next_change(w->consumer);
  assert_ptr_equal(inlet, w->inlet);
  assert_int_equal(inlet->state, WEIR_INLET_CLOSED);
  assert_int_equal(inlet->close_code, WEIR_CLOSE_NO_CAPACITY);
  assert_string_equal(inlet->reason, "full house");
  assert_int_equal(weir_yamux_streams(weir_session_yamux(w->alice)), 1);
  assert_int_equal(weir_yamux_streams(weir_session_yamux(w->bob)), 1);
  assert_null(weir_consumer_next_change(w->consumer));
  assert_null(weir_consumer_find(w->consumer, 1));
}

static void a_request_that_is_withdrawn_cannot_be_answered(void **state) {
  world *w = *state;
  connect_nodes(w);
  make_producer(w, &(weir_producer_config){.epoch = EPOCH});
  make_consumer(w, &(weir_consumer_config){0});
  weir_subscribe subscribe = request_for(STREAM);
  assert_ok(weir_session_subscribe(w->alice, w->consumer, &subscribe, &w->inlet));
  talk(w);
  const uint64_t id = weir_session_next_request(w->bob)->id;
  weir_inlet_close(w->inlet, WEIR_CLOSE_CANCELLED, "changed my mind");
  talk(w);
  uint64_t subscriber;
  const weir_slice raw = {NULL, (const unsigned char *)"raw", 3};
  assert_status(weir_session_accept(w->bob, id, w->producer, raw, (weir_slice){0}, &subscriber),
                WEIR_E_CLOSED);
  assert_int_equal(weir_yamux_streams(weir_session_yamux(w->bob)), 1);
}

static void a_codec_name_that_is_too_long_is_not_accepted(void **state) {
  static const unsigned char LONG[WEIR_MAX_NAME + 1] = {'x'};
  world *w = *state;
  connect_nodes(w);
  make_producer(w, &(weir_producer_config){.epoch = EPOCH});
  make_consumer(w, &(weir_consumer_config){0});
  weir_subscribe subscribe = request_for(STREAM);
  subscribe.codec = (weir_slice){NULL, LONG, sizeof LONG};
  assert_status(weir_session_subscribe(w->alice, w->consumer, &subscribe, &w->inlet), WEIR_E_LIMIT);
  subscribe = request_for(STREAM);
  assert_ok(weir_session_subscribe(w->alice, w->consumer, &subscribe, &w->inlet));
  talk(w);
  const uint64_t id = weir_session_next_request(w->bob)->id;
  uint64_t subscriber;
  const weir_slice name = {NULL, LONG, sizeof LONG};
  assert_status(weir_session_accept(w->bob, id, w->producer, name, (weir_slice){0}, &subscriber),
                WEIR_E_LIMIT);
  assert_int_equal(w->producer->count, 0);
  assert_ok(weir_session_reject(w->bob, id, WEIR_CLOSE_WRONG_CODEC, ""));
}

static void a_producer_that_is_closed_does_not_accept(void **state) {
  world *w = *state;
  connect_nodes(w);
  make_producer(w, &(weir_producer_config){.epoch = EPOCH});
  make_consumer(w, &(weir_consumer_config){0});
  weir_producer_close(w->producer, WEIR_CLOSE_SHUTDOWN, "");
  weir_subscribe subscribe = request_for(STREAM);
  assert_ok(weir_session_subscribe(w->alice, w->consumer, &subscribe, &w->inlet));
  talk(w);
  const uint64_t id = weir_session_next_request(w->bob)->id;
  uint64_t subscriber;
  assert_status(
      weir_session_accept(w->bob, id, w->producer, (weir_slice){0}, (weir_slice){0}, &subscriber),
      WEIR_E_CLOSED);
  assert_ok(weir_session_reject(w->bob, id, WEIR_CLOSE_NOT_FOUND, "gone"));
  talk(w);
  assert_int_equal(w->inlet->close_code, WEIR_CLOSE_NOT_FOUND);
}

static void the_gauge_of_a_subscriber_shows_its_credit(void **state) {
  world *w = *state;
  stream_nodes(w, &(weir_producer_config){.epoch = EPOCH},
               &(weir_consumer_config){.max_items = 10, .max_bytes = 1000});
  send_number(w, 1);
  talk(w);
  weir_inlet *local;
  weir_consumer *reader = weir_consumer_new(&w->memory->alloc, &w->hub, &(weir_consumer_config){0});
  assert_ok(weir_consumer_attach(reader, w->producer, BOB, &local));
  unsigned remote = 0;
  for (weir_link *l = w->producer->subscribers.next; l != &w->producer->subscribers; l = l->next) {
    weir_outlet_gauge gauge;
    if (!weir_outlet_gauge_of(weir_list_of(l, weir_subscriber, link), &gauge)) continue;
    remote++;
    assert_int_equal(gauge.credit_items, 9);
    assert_int_equal(gauge.credit_bytes, 1000 - 36);
  }
  assert_int_equal(remote, 1);
  weir_consumer_free(reader);
}

static void subscribing_waits_while_too_many_wait_for_an_answer(void **state) {
  world *w = *state;
  connect_nodes(w);
  make_consumer(w, &(weir_consumer_config){0});
  weir_subscribe subscribe = request_for(STREAM);
  unsigned opened = 0;
  weir_status status;
  while ((status = weir_session_subscribe(w->alice, w->consumer, &subscribe, &w->inlet)) == WEIR_OK)
    opened++;
  assert_status(status, WEIR_E_AGAIN);
  assert_true(opened >= 200);
  talk(w);
  events(weir_session_source(w->alice));
  const weir_request *request = weir_session_next_request(w->bob);
  assert_ok(weir_session_reject(w->bob, request->id, WEIR_CLOSE_NOT_FOUND, ""));
  talk(w);
  assert_true(events(weir_session_source(w->alice)) & WEIR_SESSION_WRITABLE);
  assert_ok(weir_session_subscribe(w->alice, w->consumer, &subscribe, &w->inlet));
}

static void nobody_subscribes_before_the_greeting(void **state) {
  world *w = *state;
  weir_session_config alice = config_of(true);
  w->alice = make_session(w, &alice);
  make_consumer(w, &(weir_consumer_config){0});
  weir_subscribe subscribe = request_for(STREAM);
  assert_status(weir_session_subscribe(w->alice, w->consumer, &subscribe, &w->inlet),
                WEIR_E_CLOSED);
}

static raw_stream *raw_subscribe(world *w, const weir_subscribe *subscribe) {
  raw_stream *s = raw_open(w->raw);
  weir_frame_buffer frame;
  assert_ok(weir_write_subscribe(&frame, subscribe));
  raw_frame_out(s, &frame);
  talk(w);
  return s;
}

static weir_subscribe raw_request(void) {
  weir_subscribe subscribe = request_for(STREAM);
  subscribe.version = 1;
  memcpy(subscribe.network, NETWORK, WEIR_ID_SIZE);
  subscribe.credit_bytes = 1u << 20;
  subscribe.credit_items = 1000;
  return subscribe;
}

static void a_request_of_a_peer_that_has_not_greeted_is_refused(void **state) {
  world *w = *state;
  raw_client(w);
  const weir_subscribe subscribe = raw_request();
  raw_stream *s = raw_subscribe(w, &subscribe);
  assert_null(weir_session_next_request(w->bob));
  assert_int_equal(raw_close_code(s), WEIR_CLOSE_PROTOCOL);
  assert_alive(w->bob);
}

static void a_request_for_another_network_is_refused(void **state) {
  world *w = *state;
  raw_friend(w);
  weir_subscribe subscribe = raw_request();
  memcpy(subscribe.network, ELSEWHERE, WEIR_ID_SIZE);
  raw_stream *s = raw_subscribe(w, &subscribe);
  assert_null(weir_session_next_request(w->bob));
  assert_int_equal(raw_close_code(s), WEIR_CLOSE_WRONG_NETWORK);
  assert_alive(w->bob);
}

static void a_request_of_another_version_is_refused(void **state) {
  world *w = *state;
  raw_friend(w);
  weir_subscribe subscribe = raw_request();
  subscribe.version = 2;
  raw_stream *s = raw_subscribe(w, &subscribe);
  assert_int_equal(raw_close_code(s), WEIR_CLOSE_BAD_VERSION);
  assert_alive(w->bob);
}

static void a_stream_that_does_not_say_what_it_wants_is_closed_in_time(void **state) {
  world *w = *state;
  raw_friend(w);
  raw_stream *s = raw_open(w->raw);
  raw_write(s, "\0\0", 2);
  talk(w);
  weir_endpoint *endpoint = weir_session_endpoint(w->bob);
  assert_int_equal(endpoint->deadline(endpoint), w->hub.now + 10 * WEIR_SECOND);
  w->hub.now += 10 * WEIR_SECOND - 1;
  assert_ok(endpoint->tick(endpoint, w->hub.now));
  talk(w);
  assert_int_equal(raw_close_code(s), 0);
  w->hub.now++;
  assert_ok(endpoint->tick(endpoint, w->hub.now));
  talk(w);
  assert_int_equal(raw_close_code(s), WEIR_CLOSE_TIMEOUT);
  assert_alive(w->bob);
}

static void garbage_in_place_of_a_request_ends_only_its_stream(void **state) {
  world *w = *state;
  raw_friend(w);
  raw_stream *garbage = raw_open(w->raw), *huge = raw_open(w->raw), *empty = raw_open(w->raw);
  raw_write(garbage, "\0\0\0\14hello, world", 16);
  raw_write(huge, "\177\377\377\377", 4);
  weir_yamux_shutdown(empty->stream);
  const weir_subscribe subscribe = raw_request();
  raw_subscribe(w, &subscribe);
  assert_int_equal(raw_close_code(garbage), WEIR_CLOSE_PROTOCOL);
  assert_int_equal(raw_close_code(huge), WEIR_CLOSE_PROTOCOL);
  assert_int_equal(raw_close_code(empty), WEIR_CLOSE_CANCELLED);
  assert_non_null(weir_session_next_request(w->bob));
  assert_alive(w->bob);
}

static void a_flood_of_opens_is_refused_beyond_the_backlog(void **state) {
  world *w = *state;
  raw_friend(w);
  const weir_subscribe subscribe = raw_request();
  for (unsigned i = 0; i < 1000; i++)
    raw_subscribe(w, &subscribe);
  unsigned open = 0;
  for (size_t i = 1; i < w->raw->count; i++)
    open += w->raw->streams[i].stream != NULL;
  assert_int_equal(open, 256);
  assert_true(w->memory->peak < 1024 * 1024);
  unsigned asked = 0;
  while (weir_session_next_request(w->bob) != NULL)
    asked++;
  assert_int_equal(asked, 256);
  assert_alive(w->bob);
}

static void a_consumer_that_waits_for_an_answer_has_nothing_more_to_say(void **state) {
  world *w = *state;
  raw_friend(w);
  const weir_subscribe subscribe = raw_request();
  raw_stream *s = raw_subscribe(w, &subscribe);
  raw_write(s, "\0\0\0\7\200\0\0\0abc", 11); /* may be skipped */
  talk(w);
  assert_int_equal(raw_close_code(s), 0);
  weir_frame_buffer frame;
  assert_ok(weir_write_subscribe(&frame, &subscribe));
  raw_frame_out(s, &frame);
  talk(w);
  assert_int_equal(raw_close_code(s), WEIR_CLOSE_PROTOCOL);
  assert_null(weir_session_next_request(w->bob));
}

static void a_frame_cut_by_the_answer_is_still_read_whole(void **state) {
  world *w = *state;
  raw_friend(w);
  make_producer(w, &(weir_producer_config){.epoch = EPOCH});
  const weir_subscribe subscribe = raw_request();
  raw_stream *s = raw_subscribe(w, &subscribe);
  raw_write(s, "\0\0\0\7\200\0", 6); /* a frame that may be skipped ... */
  talk(w);
  accept_with(w->bob, w->producer);
  talk(w);
  raw_write(s, "\0\0abc", 5); /* ... and its end after the answer */
  talk(w);
  assert_int_equal(raw_close_code(s), 0);
  assert_int_equal(w->producer->count, 1);
}

/* --- the consumer's side: what a producer may not do ------------------------------------------ */

/* Alice reads; the producer's node is made by hand and has started the stream at `sequence`. */
static raw_stream *raw_producer(world *w, const weir_consumer_config *config, uint64_t sequence) {
  weir_session_config alice = config_of(true);
  w->alice = make_session(w, &alice);
  w->raw = raw_new(false);
  talk(w);
  const weir_hello hello = hello_of(false);
  say_hello(&w->raw->streams[0], &hello);
  talk(w);
  make_consumer(w, config);
  weir_subscribe subscribe = request_for(STREAM);
  assert_ok(weir_session_subscribe(w->alice, w->consumer, &subscribe, &w->inlet));
  talk(w);
  raw_stream *s = &w->raw->streams[1];
  if (sequence == UINT64_MAX) return s;
  weir_start start = {.version = 1, .epoch = EPOCH, .sequence = sequence};
  memcpy(start.network, NETWORK, WEIR_ID_SIZE);
  memcpy(start.stream, STREAM, WEIR_ID_SIZE);
  weir_frame_buffer frame;
  assert_ok(weir_write_start(&frame, &start));
  raw_frame_out(s, &frame);
  talk(w);
  assert_int_equal(w->inlet->state, WEIR_INLET_OPEN);
  return s;
}

static void raw_data(raw_stream *s, uint64_t epoch, uint64_t sequence, unsigned n) {
  unsigned char frame[WEIR_DATA_HEADER + sizeof n];
  weir_write_data_header(frame, epoch, sequence, 1, sizeof n);
  memcpy(frame + WEIR_DATA_HEADER, &n, sizeof n);
  raw_write(s, frame, sizeof frame);
}

/* The subscription ended for this violation, was said so to the producer, and nothing else ended;
 * what had come before is still delivered. */
static void assert_violation(world *w, raw_stream *s, uint32_t code, unsigned held) {
  talk(w);
  assert_int_equal(w->inlet->state, WEIR_INLET_CLOSED);
  assert_int_equal(w->inlet->close_code, code);
  assert_int_equal(raw_close_code(s), code);
  assert_true(s->ended);
  assert_alive(w->alice);
  for (unsigned i = 0; i < held; i++)
    expect_number(w, i, i);
  expect_nothing(w);
}

static void a_producer_that_sends_beyond_its_credit_is_closed(void **state) {
  const weir_consumer_config configs[] = {{.max_items = 3}, {.max_bytes = 3 * 36 - 1}};
  for (size_t i = 0; i < 2; i++) {
    world *w = anew(state);
    raw_stream *s = raw_producer(w, &configs[i], 0);
    for (unsigned n = 0; n < 3; n++)
      raw_data(s, EPOCH, n, n);
    talk(w);
    assert_int_equal(w->inlet->state, WEIR_INLET_OPEN);
    raw_data(s, EPOCH, 3, 3);
    assert_violation(w, s, WEIR_CLOSE_PROTOCOL, 3);
  }
}

static void a_message_longer_than_the_consumer_takes_closes_the_subscription(void **state) {
  world *w = *state;
  raw_stream *s = raw_producer(w, &(weir_consumer_config){.max_message = 20000}, 0);
  raw_data(s, EPOCH, 0, 0);
  unsigned char header[WEIR_DATA_HEADER];
  weir_write_data_header(header, EPOCH, 1, 1, 20001);
  raw_write(s, header, sizeof header);
  assert_violation(w, s, WEIR_CLOSE_PROTOCOL, 1);
}

static void a_small_limit_on_messages_holds_below_that_of_control_frames(void **state) {
  world *w = *state;
  raw_stream *s = raw_producer(w, &(weir_consumer_config){.max_message = 4}, 0);
  raw_data(s, EPOCH, 0, 0);
  unsigned char frame[WEIR_DATA_HEADER + 5] = {0};
  weir_write_data_header(frame, EPOCH, 1, 1, 5);
  raw_write(s, frame, sizeof frame);
  assert_violation(w, s, WEIR_CLOSE_PROTOCOL, 1);
}

static void data_before_start_is_a_violation(void **state) {
  world *w = *state;
  raw_stream *s = raw_producer(w, &(weir_consumer_config){0}, UINT64_MAX);
  raw_data(s, EPOCH, 0, 0);
  assert_violation(w, s, WEIR_CLOSE_PROTOCOL, 0);
}

static void data_of_another_epoch_is_a_violation(void **state) {
  world *w = *state;
  raw_stream *s = raw_producer(w, &(weir_consumer_config){0}, 0);
  raw_data(s, EPOCH, 0, 0);
  raw_data(s, EPOCH + 1, 1, 1);
  assert_violation(w, s, WEIR_CLOSE_PROTOCOL, 1);
}

static void a_sequence_that_goes_back_is_a_violation(void **state) {
  world *w = *state;
  raw_stream *s = raw_producer(w, &(weir_consumer_config){0}, 0);
  raw_data(s, EPOCH, 0, 0);
  raw_data(s, EPOCH, 1, 1);
  raw_data(s, EPOCH, 1, 1);
  assert_violation(w, s, WEIR_CLOSE_PROTOCOL, 2);
}

static void the_last_sequence_there_is_cannot_be_used(void **state) {
  world *w = *state;
  raw_stream *s = raw_producer(w, &(weir_consumer_config){0}, 0);
  raw_data(s, EPOCH, UINT64_MAX, 0);
  assert_violation(w, s, WEIR_CLOSE_PROTOCOL, 0);
}

static void a_second_start_is_a_violation(void **state) {
  world *w = *state;
  raw_stream *s = raw_producer(w, &(weir_consumer_config){0}, 0);
  weir_start start = {.version = 1, .epoch = EPOCH};
  memcpy(start.network, NETWORK, WEIR_ID_SIZE);
  memcpy(start.stream, STREAM, WEIR_ID_SIZE);
  weir_frame_buffer frame;
  assert_ok(weir_write_start(&frame, &start));
  raw_frame_out(s, &frame);
  assert_violation(w, s, WEIR_CLOSE_PROTOCOL, 0);
}

static void a_start_for_something_else_is_refused(void **state) {
  static const struct {
    const unsigned char *network, *stream;
    uint16_t version;
    uint32_t code;
  } CASES[] = {{ELSEWHERE, STREAM, 1, WEIR_CLOSE_WRONG_NETWORK},
               {NETWORK, ELSEWHERE, 1, WEIR_CLOSE_NOT_FOUND},
               {NETWORK, STREAM, 2, WEIR_CLOSE_BAD_VERSION}};
  for (size_t i = 0; i < 3; i++) {
    world *w = anew(state);
    raw_stream *s = raw_producer(w, &(weir_consumer_config){0}, UINT64_MAX);
    weir_start start = {.version = CASES[i].version, .epoch = EPOCH};
    memcpy(start.network, CASES[i].network, WEIR_ID_SIZE);
    memcpy(start.stream, CASES[i].stream, WEIR_ID_SIZE);
    weir_frame_buffer frame;
    assert_ok(weir_write_start(&frame, &start));
    raw_frame_out(s, &frame);
    assert_violation(w, s, CASES[i].code, 0);
  }
}

static void an_unknown_frame_is_skipped_only_if_its_type_allows_it(void **state) {
  world *w = *state;
  raw_stream *s = raw_producer(w, &(weir_consumer_config){0}, 0);
  raw_write(s, "\0\0\0\5\377\0\0\0x", 9);
  raw_data(s, EPOCH, 0, 0);
  talk(w);
  assert_int_equal(w->inlet->state, WEIR_INLET_OPEN);
  raw_write(s, "\0\0\0\5\40\0\0\0x", 9);
  assert_violation(w, s, WEIR_CLOSE_PROTOCOL, 1);
}

static void a_frame_too_short_for_its_own_header_is_a_violation(void **state) {
  world *w = *state;
  raw_stream *s = raw_producer(w, &(weir_consumer_config){0}, 0);
  raw_write(s, "\0\0\0\3\377\0\0", 7);
  assert_violation(w, s, WEIR_CLOSE_PROTOCOL, 0);
}

static void raw_gap(raw_stream *s, uint64_t epoch, uint64_t from, uint64_t to) {
  const weir_gap gap = {epoch, from, to};
  unsigned char frame[WEIR_GAP_SIZE];
  raw_write(s, frame, weir_write_gap(frame, &gap));
}

static void raw_sync(raw_stream *s, uint64_t epoch, uint64_t sequence) {
  const weir_sync sync = {epoch, sequence};
  unsigned char frame[WEIR_SYNC_SIZE];
  raw_write(s, frame, weir_write_sync(frame, &sync));
}

/* The grant that must come next. */
static weir_grant raw_grant(world *w, raw_stream *s) {
  const unsigned char *payload;
  size_t len;
  weir_grant grant;
  int type;
  talk(w);
  do {
    type = raw_frame(s, &payload, &len);
  } while (type == WEIR_FRAME_SUBSCRIBE);
  assert_int_equal(type, WEIR_FRAME_CREDIT);
  assert_ok(weir_read_grant(payload, len, &grant));
  return grant;
}

static void gaps_are_counted_whether_said_or_seen(void **state) {
  world *w = *state;
  raw_stream *s = raw_producer(w, &(weir_consumer_config){0}, 10);
  raw_gap(s, EPOCH, 4, 10); /* before START's position: what a resume missed */
  raw_data(s, EPOCH, 10, 1);
  raw_gap(s, EPOCH, 11, 15);
  raw_data(s, EPOCH, 15, 2);
  raw_data(s, EPOCH, 18, 3); /* 16 and 17 never came */
  raw_gap(s, EPOCH, 19, 21);
  talk(w);
  assert_int_equal(w->inlet->gaps, 4);
  assert_int_equal(w->inlet->missed, 6 + 4 + 2 + 2);
  expect_number(w, 1, 10);
  expect_number(w, 2, 15);
  expect_number(w, 3, 18);
  raw_sync(s, EPOCH, 21);
  assert_int_equal(raw_grant(w, s).acknowledged, 21);
}

static void a_gap_that_nothing_was_taken_after_moves_the_position(void **state) {
  world *w = *state;
  raw_stream *s = raw_producer(w, &(weir_consumer_config){0}, 10);
  raw_gap(s, EPOCH, 10, 15);
  talk(w);
  assert_int_equal(w->inlet->next_sequence, 15);
}

static void a_gap_that_does_not_fit_is_a_violation(void **state) {
  static const struct {
    uint64_t epoch, from, to;
  } CASES[] = {{EPOCH + 1, 1, 3}, {EPOCH, 0, 3}, {EPOCH, 2, 3}, {EPOCH, 1, UINT64_MAX}};
  for (size_t i = 0; i < 4; i++) {
    world *w = anew(state);
    raw_stream *s = raw_producer(w, &(weir_consumer_config){0}, 0);
    raw_data(s, EPOCH, 0, 0);
    raw_gap(s, CASES[i].epoch, CASES[i].from, CASES[i].to);
    assert_violation(w, s, WEIR_CLOSE_PROTOCOL, 1);
  }
}

static void a_sync_is_answered_once_all_before_it_is_taken(void **state) {
  world *w = *state;
  raw_stream *s = raw_producer(w, &(weir_consumer_config){.max_items = 100}, 5);
  raw_sync(s, EPOCH, 5); /* nothing to wait for */
  weir_grant grant = raw_grant(w, s);
  assert_int_equal(grant.epoch, EPOCH);
  assert_int_equal(grant.acknowledged, 5);
  assert_int_equal(grant.limit_items, 100);
  raw_data(s, EPOCH, 5, 1);
  raw_data(s, EPOCH, 6, 2);
  raw_sync(s, EPOCH, 7);
  raw_data(s, EPOCH, 7, 3);
  talk(w);
  expect_number(w, 1, 5);
  talk(w);
  assert_int_equal(s->at, s->len);
  expect_number(w, 2, 6);
  grant = raw_grant(w, s);
  assert_int_equal(grant.acknowledged, 7);
  assert_int_equal(grant.limit_items, 102);
  assert_int_equal(grant.limit_bytes, 1024 * 1024 + 2 * 36);
}

static void a_sync_for_what_was_not_sent_is_a_violation(void **state) {
  for (int i = 0; i < 2; i++) {
    world *w = anew(state);
    raw_stream *s = raw_producer(w, &(weir_consumer_config){0}, 0);
    raw_sync(s, EPOCH + (i == 0), (uint64_t)i);
    assert_violation(w, s, WEIR_CLOSE_PROTOCOL, 0);
  }
}

static void credit_is_granted_anew_at_half_of_the_window(void **state) {
  world *w = *state;
  raw_stream *s = raw_producer(w, &(weir_consumer_config){.max_items = 4}, 0);
  for (unsigned n = 0; n < 4; n++)
    raw_data(s, EPOCH, n, n);
  talk(w);
  weir_inlet_gauge gauge;
  w->inlet->type->gauge(w->inlet, &gauge);
  assert_int_equal(gauge.queued_items, 4);
  assert_int_equal(gauge.queued_bytes, 16);
  assert_int_equal(gauge.credit_items, 0);
  expect_number(w, 0, 0);
  talk(w);
  const unsigned char *payload;
  size_t len;
  assert_int_equal(raw_frame(s, &payload, &len), WEIR_FRAME_SUBSCRIBE);
  assert_int_equal(raw_frame(s, &payload, &len), -1);
  expect_number(w, 1, 1);
  const weir_grant grant = raw_grant(w, s);
  assert_int_equal(grant.acknowledged, 2);
  assert_int_equal(grant.limit_items, 6);
}

static void a_flood_of_syncs_from_a_peer_that_does_not_read_is_bounded(void **state) {
  world *w = *state;
  raw_stream *s = raw_producer(w, &(weir_consumer_config){0}, 0);
  for (unsigned i = 0; i < 20000 && w->inlet->state == WEIR_INLET_OPEN; i++) {
    raw_sync(s, EPOCH, 0);
    weir_status status;
    while (move_bytes(right(w), left(w), w->hub.now, 0, &w->random, &status) > 0) {
    }
  }
  assert_int_equal(w->inlet->state, WEIR_INLET_CLOSED);
  assert_int_equal(w->inlet->close_code, WEIR_CLOSE_UNEXPECTED);
  assert_true(w->memory->peak < 1024 * 1024);
  assert_alive(w->alice);
}

static void a_subscription_cut_in_the_middle_of_a_frame_says_so(void **state) {
  world *w = *state;
  raw_stream *s = raw_producer(w, &(weir_consumer_config){0}, 0);
  raw_data(s, EPOCH, 0, 0);
  raw_write(s, "\0\0\0\50\22\0\0\0half", 12);
  weir_yamux_shutdown(s->stream);
  talk(w);
  assert_string_equal(w->inlet->reason, "the subscription was cut in the middle of a frame");
  assert_violation(w, s, WEIR_CLOSE_UNEXPECTED, 1);
}

static void a_subscription_that_ends_without_a_reason_is_unexpected(void **state) {
  world *w = *state;
  raw_stream *s = raw_producer(w, &(weir_consumer_config){0}, 0);
  raw_data(s, EPOCH, 0, 0);
  weir_yamux_shutdown(s->stream);
  talk(w);
  assert_string_equal(w->inlet->reason, "the producer ended the subscription without a reason");
  assert_violation(w, s, WEIR_CLOSE_UNEXPECTED, 1);
}

static void a_refused_stream_closes_the_subscription(void **state) {
  world *w = *state;
  raw_stream *s = raw_producer(w, &(weir_consumer_config){0}, UINT64_MAX);
  weir_yamux_reset(s->stream);
  talk(w);
  assert_int_equal(w->inlet->state, WEIR_INLET_CLOSED);
  assert_int_equal(w->inlet->close_code, WEIR_CLOSE_UNEXPECTED);
  assert_string_equal(w->inlet->reason, "the producer's node refused the stream");
  assert_alive(w->alice);
}

static void what_comes_after_a_close_is_skipped(void **state) {
  world *w = *state;
  raw_stream *s = raw_producer(w, &(weir_consumer_config){0}, 0);
  raw_data(s, EPOCH, 0, 0);
  unsigned char frame[WEIR_CLOSE_SIZE];
  raw_write(s, frame, weir_write_close(frame, WEIR_CLOSE_SHUTDOWN, "bye", 3));
  raw_data(s, EPOCH, 1, 1);
  raw_write(s, "garbage", 7);
  talk(w);
  assert_int_equal(w->inlet->close_code, WEIR_CLOSE_SHUTDOWN);
  assert_string_equal(w->inlet->reason, "bye");
  expect_number(w, 0, 0);
  expect_nothing(w);
  assert_alive(w->alice);
}

/* --- the producer's side: what a consumer may not do ------------------------------------------ */

/* Bob produces; the consumer's node is made by hand. */
static raw_stream *raw_consumer(world *w, const weir_subscribe *subscribe) {
  raw_friend(w);
  make_producer(w, &(weir_producer_config){.epoch = EPOCH, .lag = WEIR_LAG_BLOCK});
  raw_stream *s = raw_subscribe(w, subscribe);
  accept_with(w->bob, w->producer);
  talk(w);
  const unsigned char *payload;
  size_t len;
  assert_int_equal(raw_frame(s, &payload, &len), WEIR_FRAME_START);
  return s;
}

static void grant_credit(raw_stream *s, const weir_grant *grant) {
  unsigned char frame[WEIR_GRANT_SIZE];
  raw_write(s, frame, weir_write_grant(frame, grant));
}

static unsigned raw_count_data(raw_stream *s) {
  const unsigned char *payload;
  size_t len;
  unsigned count = 0;
  int type;
  while ((type = raw_frame(s, &payload, &len)) >= 0)
    count += type == WEIR_FRAME_DATA;
  return count;
}

static void no_more_is_sent_than_the_consumer_granted(void **state) {
  world *w = *state;
  weir_subscribe subscribe = raw_request();
  subscribe.credit_items = 3;
  raw_stream *s = raw_consumer(w, &subscribe);
  for (unsigned n = 0; n < 20; n++)
    send_number(w, n);
  talk(w);
  assert_int_equal(raw_count_data(s), 3);
  grant_credit(s, &(weir_grant){EPOCH, 0, 1u << 20, 5});
  talk(w);
  assert_int_equal(raw_count_data(s), 2);
  grant_credit(s, &(weir_grant){EPOCH, 2, 5 * 36 + 1, 4}); /* limits never go back */
  talk(w);
  assert_int_equal(raw_count_data(s), 0);
  grant_credit(s, &(weir_grant){EPOCH, 2, 1u << 20, 100});
  talk(w);
  assert_int_equal(raw_count_data(s), 15);
}

static void below_both_limits_one_message_of_any_size_may_be_sent(void **state) {
  world *w = *state;
  weir_subscribe subscribe = raw_request();
  subscribe.credit_bytes = 37;
  raw_stream *s = raw_consumer(w, &subscribe);
  for (unsigned n = 0; n < 20; n++)
    send_number(w, n);
  talk(w);
  assert_int_equal(raw_count_data(s), 2);
  grant_credit(s, &(weir_grant){EPOCH, 0, 72, 1000}); /* used up to the byte */
  talk(w);
  assert_int_equal(raw_count_data(s), 0);
  grant_credit(s, &(weir_grant){EPOCH, 0, 73, 1000});
  talk(w);
  assert_int_equal(raw_count_data(s), 1);
}

static void a_consumer_without_any_credit_gets_nothing(void **state) {
  world *w = *state;
  weir_subscribe subscribe = raw_request();
  subscribe.credit_bytes = 0;
  raw_stream *s = raw_consumer(w, &subscribe);
  send_number(w, 1);
  talk(w);
  assert_int_equal(raw_count_data(s), 0);
}

static void a_consumer_that_breaks_the_protocol_is_closed_and_nothing_else(void **state) {
  unsigned char bad_epoch[WEIR_GRANT_SIZE], too_far[WEIR_GRANT_SIZE];
  weir_write_grant(bad_epoch, &(weir_grant){EPOCH + 1, 0, 1, 1});
  weir_write_grant(too_far, &(weir_grant){EPOCH, 3, 1, 1});
  const struct {
    const void *bytes;
    size_t len;
  } CASES[] = {{bad_epoch, sizeof bad_epoch},
               {too_far, sizeof too_far},
               {"\0\0\0\4\25\0\0\0", 8},
               {"\0\0\0\4\22\0\0\0", 8},
               {"\0\0\0\5\37\0\0\0x", 9},
               {"\377\377\377\377", 4},
               {"\0\0\0\0", 4}};
  for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
    world *w = anew(state);
    const weir_subscribe subscribe = raw_request();
    raw_stream *s = raw_consumer(w, &subscribe);
    const weir_subscribe other = raw_request();
    raw_stream *witness = raw_subscribe(w, &other);
    accept_with(w->bob, w->producer);
    send_number(w, 1);
    send_number(w, 2);
    talk(w);
    raw_write(s, CASES[i].bytes, CASES[i].len);
    talk(w);
    assert_int_equal(raw_close_code(s), WEIR_CLOSE_PROTOCOL);
    assert_int_equal(w->producer->count, 1);
    send_number(w, 3);
    talk(w);
    assert_int_equal(raw_count_data(witness), 3);
    assert_alive(w->bob);
  }
}

static void a_consumer_that_does_not_read_costs_the_producer_its_ring_and_no_more(void **state) {
  world *w = *state;
  raw_friend(w);
  make_producer(
      w, &(weir_producer_config){.epoch = EPOCH, .lag = WEIR_LAG_BLOCK, .max_bytes = 1u << 20});
  weir_subscribe subscribe = raw_request();
  subscribe.credit_bytes = subscribe.credit_items = UINT64_MAX;
  raw_subscribe(w, &subscribe);
  accept_with(w->bob, w->producer);
  static unsigned char payload[10000];
  weir_endpoint *endpoint = weir_session_endpoint(w->bob);
  unsigned sent = 0;
  for (unsigned i = 0; i < 10000; i++) {
    if (weir_producer_send(w->producer, payload, sizeof payload) != WEIR_OK) break;
    weir_iov iov[64];
    endpoint->output(endpoint, iov, 64, w->hub.now); /* and the socket takes nothing */
    sent++;
  }
  assert_true(sent < 300);
  assert_true(w->memory->peak < 3u << 20);
}

static void the_consumer_can_leave_at_any_time(void **state) {
  for (int how = 0; how < 3; how++) {
    world *w = anew(state);
    const weir_subscribe subscribe = raw_request();
    raw_stream *s = raw_consumer(w, &subscribe);
    unsigned char frame[WEIR_CLOSE_SIZE];
    if (how == 0) raw_write(s, frame, weir_write_close(frame, WEIR_CLOSE_CANCELLED, "", 0));
    if (how == 1) weir_yamux_shutdown(s->stream);
    if (how == 2) weir_yamux_reset(s->stream);
    talk(w);
    assert_int_equal(w->producer->count, 0);
    assert_int_equal(weir_yamux_streams(weir_session_yamux(w->bob)), 1 + (how == 0));
  }
}

/* --- both sides ------------------------------------------------------------------------------- */

static void a_producer_that_closes_delivers_first_what_it_had_moved(void **state) {
  world *w = *state;
  stream_nodes(w, &(weir_producer_config){.epoch = EPOCH}, &(weir_consumer_config){0});
  for (unsigned n = 0; n < 10; n++)
    send_number(w, n);
  talk(w);
  weir_producer_close(w->producer, WEIR_CLOSE_SHUTDOWN, "no more");
  talk(w);
  assert_int_equal(w->inlet->close_code, WEIR_CLOSE_SHUTDOWN);
  assert_string_equal(w->inlet->reason, "no more");
  for (unsigned n = 0; n < 10; n++)
    expect_number(w, n, n);
}

static void a_long_message_still_leaves_before_the_producer_closes(void **state) {
  enum {
    LEN = 900000
  };
  world *w = *state;
  stream_nodes(w, &(weir_producer_config){.epoch = EPOCH}, &(weir_consumer_config){0});
  unsigned char *payload = calloc(1, LEN);
  assert_ok(weir_producer_send(w->producer, payload, LEN));
  /* The first part is on its way. */
  static unsigned char bytes[100000];
  const size_t len = take_output(right(w), bytes, sizeof bytes, w->hub.now);
  weir_producer_close(w->producer, WEIR_CLOSE_SHUTDOWN, "no more");
  assert_ok(feed_piece(left(w), bytes, len, w->hub.now));
  talk(w);
  assert_int_equal(w->inlet->close_code, WEIR_CLOSE_SHUTDOWN);
  assert_string_equal(w->inlet->reason, "no more");
  weir_item item;
  assert_ok(weir_consumer_peek(w->consumer, &item));
  assert_int_equal(item.len, LEN);
  free(payload);
}

static void a_sync_after_a_long_message_waits_for_its_place(void **state) {
  enum {
    LEN = 900000
  };
  world *w = *state;
  stream_nodes(w, &(weir_producer_config){.epoch = EPOCH}, &(weir_consumer_config){0});
  unsigned char *payload = calloc(1, LEN);
  assert_ok(weir_producer_send(w->producer, payload, LEN));
  assert_status(weir_producer_sync(w->producer), WEIR_E_AGAIN);
  talk(w);
  assert_int_equal(w->inlet->state, WEIR_INLET_OPEN);
  weir_item item;
  assert_ok(weir_consumer_peek(w->consumer, &item));
  assert_int_equal(item.len, LEN);
  weir_consumer_pop(w->consumer, &item);
  events(&w->producer->source);
  talk(w);
  assert_true(events(&w->producer->source) & WEIR_PRODUCER_ACKED);
  assert_ok(weir_producer_sync(w->producer));
  free(payload);
}

static void sync_tells_when_every_consumer_has_taken_everything(void **state) {
  world *w = *state;
  stream_nodes(w, &(weir_producer_config){.epoch = EPOCH}, &(weir_consumer_config){0});
  weir_inlet *local;
  weir_consumer *reader = weir_consumer_new(&w->memory->alloc, &w->hub, &(weir_consumer_config){0});
  assert_ok(weir_consumer_attach(reader, w->producer, BOB, &local));
  assert_ok(weir_producer_sync(w->producer));
  for (unsigned n = 0; n < 3; n++)
    send_number(w, n);
  assert_status(weir_producer_sync(w->producer), WEIR_E_AGAIN);
  talk(w);
  for (unsigned n = 0; n < 3; n++)
    expect_number(w, n, n);
  talk(w);
  assert_false(events(&w->producer->source) & WEIR_PRODUCER_ACKED);
  weir_item item;
  while (weir_consumer_peek(reader, &item) == WEIR_OK)
    weir_consumer_pop(reader, &item);
  assert_true(events(&w->producer->source) & WEIR_PRODUCER_ACKED);
  weir_consumer_free(reader);
}

static void a_consumer_that_reads_nothing_blocks_or_is_closed_by_the_lag_policy(void **state) {
  for (int block = 0; block < 2; block++) {
    world *w = anew(state);
    stream_nodes(
        w,
        &(weir_producer_config){
            .epoch = EPOCH, .max_items = 50, .lag = block ? WEIR_LAG_BLOCK : WEIR_LAG_DISCONNECT},
        &(weir_consumer_config){.max_items = 20});
    unsigned sent = 0;
    for (unsigned n = 0; n < 100; n++) {
      if (weir_producer_send(w->producer, &n, sizeof n) == WEIR_OK) sent++;
      talk(w);
    }
    assert_int_equal(sent, 70);
    w->hub.now += 101 * WEIR_MILLISECOND;
    weir_producer_evict_slow(w->producer);
    talk(w);
    assert_int_equal(w->producer->count, block);
    if (!block) assert_int_equal(w->inlet->close_code, WEIR_CLOSE_TOO_SLOW);
    for (unsigned n = 0; n < 20; n++)
      expect_number(w, n, n);
    talk(w);
    if (block) expect_number(w, 20, 20);
  }
}

static void a_lost_connection_closes_the_subscription_on_both_sides(void **state) {
  world *w = *state;
  stream_nodes(w, &(weir_producer_config){.epoch = EPOCH}, &(weir_consumer_config){0});
  send_number(w, 1);
  talk(w);
  left(w)->ended(left(w), WEIR_E_RESET);
  right(w)->ended(right(w), WEIR_OK);
  assert_ended(w->alice, WEIR_CLOSE_UNEXPECTED, "the connection was lost");
  assert_int_equal(w->producer->count, 0);
  assert_int_equal(w->inlet->close_code, WEIR_CLOSE_UNEXPECTED);
  expect_number(w, 1, 0);
  send_number(w, 2);
  assert_int_equal(w->producer->undelivered, 1);
}

static void objects_may_be_freed_in_any_order(void **state) {
  for (int order = 0; order < 24; order++) {
    world *w = anew(state);
    stream_nodes(w, &(weir_producer_config){.epoch = EPOCH}, &(weir_consumer_config){0});
    for (unsigned n = 0; n < 10; n++)
      send_number(w, n);
    if (order % 2) talk(w);
    bool gone[4] = {false};
    for (int step = 0, rest = order; step < 4; step++) {
      int which = rest % (4 - step);
      rest /= 4 - step;
      int i = 0;
      while (gone[i] || which-- > 0)
        i++;
      gone[i] = true;
      if (i == 0) weir_producer_free(w->producer);
      if (i == 1) weir_consumer_free(w->consumer);
      if (i == 2) weir_session_free(w->alice);
      if (i == 3) weir_session_free(w->bob);
    }
    w->producer = NULL;
    w->consumer = NULL;
    w->alice = w->bob = NULL;
    weir_hub_init(&w->hub);
  }
}

static void a_consumer_resumes_where_it_stopped_if_the_ring_still_has_it(void **state) {
  world *w = *state;
  connect_nodes(w);
  make_producer(w, &(weir_producer_config){.epoch = EPOCH, .lag = WEIR_LAG_BLOCK});
  make_consumer(w, &(weir_consumer_config){0});
  /* Somebody who reads nothing keeps the messages in the ring. */
  weir_consumer *sleeper =
      weir_consumer_new(&w->memory->alloc, &w->hub, &(weir_consumer_config){0});
  weir_inlet *local;
  assert_ok(weir_producer_send(w->producer, "", 0)); /* 0 is undelivered */
  assert_ok(weir_consumer_attach(sleeper, w->producer, BOB, &local));
  for (unsigned n = 1; n < 10; n++)
    send_number(w, n);
  weir_subscribe subscribe = request_for(STREAM);
  subscribe.has_resume = true;
  subscribe.resume_epoch = EPOCH;
  subscribe.resume_sequence = 4;
  subscribe_with(w, subscribe);
  assert_int_equal(w->inlet->gaps, 0);
  for (unsigned n = 4; n < 10; n++)
    expect_number(w, n, n);
  expect_nothing(w);
  weir_consumer_free(sleeper);
}

static void a_resume_beyond_the_ring_starts_with_an_explicit_gap(void **state) {
  world *w = *state;
  connect_nodes(w);
  make_producer(w, &(weir_producer_config){.epoch = EPOCH});
  make_consumer(w, &(weir_consumer_config){0});
  for (unsigned n = 0; n < 10; n++)
    send_number(w, n); /* to nobody */
  weir_subscribe subscribe = request_for(STREAM);
  subscribe.has_resume = true;
  subscribe.resume_epoch = EPOCH;
  subscribe.resume_sequence = 4;
  subscribe_with(w, subscribe);
  assert_int_equal(w->inlet->gaps, 1);
  assert_int_equal(w->inlet->missed, 6);
  assert_int_equal(w->inlet->next_sequence, 10);
  send_number(w, 10);
  talk(w);
  expect_number(w, 10, 10);
}

static void a_resume_in_another_epoch_or_the_future_starts_at_the_head(void **state) {
  for (int i = 0; i < 2; i++) {
    world *w = anew(state);
    connect_nodes(w);
    make_producer(w, &(weir_producer_config){.epoch = EPOCH});
    make_consumer(w, &(weir_consumer_config){0});
    for (unsigned n = 0; n < 10; n++)
      send_number(w, n);
    weir_subscribe subscribe = request_for(STREAM);
    subscribe.has_resume = true;
    subscribe.resume_epoch = i == 0 ? EPOCH - 1 : EPOCH;
    subscribe.resume_sequence = i == 0 ? 4 : 1000;
    subscribe_with(w, subscribe);
    assert_int_equal(w->inlet->gaps, 0);
    assert_int_equal(w->inlet->next_sequence, 10);
  }
}

static void payloads_of_every_kind_of_length_arrive_whole(void **state) {
  static const size_t LENGTHS[] = {0, 1, 31, 1023, 1024, 8191, 65536, 300000, 1024 * 1024};
  for (size_t cut = 0; cut <= 5000; cut += 5000) {
    world *w = anew(state);
    stream_nodes(w, &(weir_producer_config){.epoch = EPOCH}, &(weir_consumer_config){0});
    w->cut = cut;
    unsigned char *payload = malloc(1024 * 1024);
    for (size_t i = 0; i < 1024 * 1024; i++)
      payload[i] = (unsigned char)(i * 7 + (i >> 9));
    for (size_t i = 0; i < sizeof LENGTHS / sizeof *LENGTHS; i++) {
      assert_ok(weir_producer_send(w->producer, payload, LENGTHS[i]));
      talk(w);
      weir_item item;
      assert_ok(weir_consumer_peek(w->consumer, &item));
      assert_int_equal(item.len, LENGTHS[i]);
      assert_memory_equal(item.payload, payload, LENGTHS[i]);
      weir_consumer_pop(w->consumer, &item);
    }
    assert_status(weir_producer_send(w->producer, payload, 1024 * 1024 + 1), WEIR_E_LIMIT);
    free(payload);
  }
}

/* --- memory ----------------------------------------------------------------------------------- */

static void drain(world *w) {
  weir_item item;
  while (weir_consumer_peek(w->consumer, &item) == WEIR_OK)
    weir_consumer_pop(w->consumer, &item);
  while (weir_consumer_next_change(w->consumer) != NULL) {
  }
}

static void answer_all(world *w) {
  const weir_request *request;
  for (int i = 0; (request = weir_session_next_request(w->bob)) != NULL; i++) {
    uint64_t id;
    weir_status status = i % 2 == 1
                             ? WEIR_E_LIMIT
                             : weir_session_accept(w->bob, request->id, w->producer,
                                                   request->subscribe.codec, (weir_slice){0}, &id);
    if (status != WEIR_OK) (void)weir_session_reject(w->bob, request->id, 10404, "no");
  }
}

static void a_life_with_failing_memory(weir_test_alloc *memory) {
  world w;
  set_up(&w, memory);
  w.cut = 3000;
  weir_session_config alice = config_of(true), bob = config_of(false);
  w.alice = weir_session_new(&memory->alloc, &w.hub, &alice);
  w.bob = weir_session_new(&memory->alloc, &w.hub, &bob);
  w.producer = weir_producer_new(&memory->alloc, &w.hub, &(weir_producer_config){.epoch = EPOCH});
  w.consumer = weir_consumer_new(&memory->alloc, &w.hub, &(weir_consumer_config){0});
  if (w.alice != NULL && w.bob != NULL && w.producer != NULL && w.consumer != NULL) {
    static unsigned char payload[9000];
    w.producer->online = true;
    talk(&w);
    (void)weir_session_announce(w.bob, true, STREAM, 1);
    talk(&w);
    bool add;
    unsigned char id[WEIR_ID_SIZE];
    (void)weir_session_next_announcement(w.alice, &add, id);
    for (int i = 0; i < 4; i++) {
      weir_subscribe subscribe = request_for(STREAM);
      (void)weir_session_subscribe(w.alice, w.consumer, &subscribe, &w.inlet);
    }
    (void)weir_consumer_attach(w.consumer, w.producer, BOB, &w.inlet);
    talk(&w);
    answer_all(&w);
    for (unsigned i = 0; i < 80; i++) {
      (void)weir_producer_send(w.producer, payload, i % 4 == 0 ? sizeof payload : i);
      if (i == 10 || i == 79) talk(&w);
    }
    (void)weir_producer_sync(w.producer);
    talk(&w);
    drain(&w);
    talk(&w);
    weir_producer_close(w.producer, WEIR_CLOSE_SHUTDOWN, "done");
    talk(&w);
    drain(&w);
    weir_session_close(w.alice, WEIR_CLOSE_SHUTDOWN, "done");
    talk(&w);
  }
  tear_down(&w);
}

static void any_allocation_may_fail(void **state) {
  (void)state;
  each_failure(a_life_with_failing_memory);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      world_test(nodes_learn_of_each_other_however_the_bytes_are_cut),
      world_test(nodes_of_two_networks_part_with_wrong_network),
      world_test(a_node_that_connects_to_itself_is_told),
      world_test(a_peer_of_another_version_is_told_so),
      world_test(a_peer_that_also_speaks_later_versions_is_answered_with_ours),
      world_test(bytes_that_are_not_yamux_end_the_session),
      world_test(garbage_on_the_control_stream_ends_the_session),
      world_test(a_peer_that_says_nothing_is_left_after_the_handshake_timeout),
      world_test(a_transport_that_ends_during_the_greeting_ends_the_session),
      world_test(a_control_stream_that_ends_or_is_reset_ends_the_session),
      world_test(a_go_away_for_an_error_ends_the_session),
      world_test(a_session_that_is_closed_tells_its_peer_why),
      world_test(an_unknown_control_frame_is_skipped_if_it_may_be),
      world_test(too_many_or_too_long_tags_are_refused_at_home),
      world_test(announcements_arrive_in_order_in_both_directions),
      world_test(announcing_waits_for_a_peer_that_does_not_read),
      world_test(nothing_is_announced_before_the_greeting),
      world_test(a_flood_of_announcements_ends_the_session_in_bounded_memory),
      world_test(a_malformed_announcement_ends_the_session),
      world_test(messages_flow_both_ways_however_the_bytes_are_cut),
      world_test(a_request_says_all_that_the_consumer_said),
      world_test(a_request_is_rejected_with_a_code_and_a_reason),
      world_test(a_request_that_is_withdrawn_cannot_be_answered),
      world_test(a_codec_name_that_is_too_long_is_not_accepted),
      world_test(a_producer_that_is_closed_does_not_accept),
      world_test(the_gauge_of_a_subscriber_shows_its_credit),
      world_test(subscribing_waits_while_too_many_wait_for_an_answer),
      world_test(nobody_subscribes_before_the_greeting),
      world_test(a_request_of_a_peer_that_has_not_greeted_is_refused),
      world_test(a_request_for_another_network_is_refused),
      world_test(a_request_of_another_version_is_refused),
      world_test(a_stream_that_does_not_say_what_it_wants_is_closed_in_time),
      world_test(garbage_in_place_of_a_request_ends_only_its_stream),
      world_test(a_flood_of_opens_is_refused_beyond_the_backlog),
      world_test(a_consumer_that_waits_for_an_answer_has_nothing_more_to_say),
      world_test(a_frame_cut_by_the_answer_is_still_read_whole),
      world_test(a_producer_that_sends_beyond_its_credit_is_closed),
      world_test(a_message_longer_than_the_consumer_takes_closes_the_subscription),
      world_test(a_small_limit_on_messages_holds_below_that_of_control_frames),
      world_test(data_before_start_is_a_violation),
      world_test(data_of_another_epoch_is_a_violation),
      world_test(a_sequence_that_goes_back_is_a_violation),
      world_test(the_last_sequence_there_is_cannot_be_used),
      world_test(a_second_start_is_a_violation),
      world_test(a_start_for_something_else_is_refused),
      world_test(an_unknown_frame_is_skipped_only_if_its_type_allows_it),
      world_test(a_frame_too_short_for_its_own_header_is_a_violation),
      world_test(gaps_are_counted_whether_said_or_seen),
      world_test(a_gap_that_nothing_was_taken_after_moves_the_position),
      world_test(a_gap_that_does_not_fit_is_a_violation),
      world_test(a_sync_is_answered_once_all_before_it_is_taken),
      world_test(a_sync_for_what_was_not_sent_is_a_violation),
      world_test(credit_is_granted_anew_at_half_of_the_window),
      world_test(a_flood_of_syncs_from_a_peer_that_does_not_read_is_bounded),
      world_test(a_subscription_cut_in_the_middle_of_a_frame_says_so),
      world_test(a_subscription_that_ends_without_a_reason_is_unexpected),
      world_test(a_refused_stream_closes_the_subscription),
      world_test(what_comes_after_a_close_is_skipped),
      world_test(no_more_is_sent_than_the_consumer_granted),
      world_test(below_both_limits_one_message_of_any_size_may_be_sent),
      world_test(a_consumer_without_any_credit_gets_nothing),
      world_test(a_consumer_that_breaks_the_protocol_is_closed_and_nothing_else),
      world_test(a_consumer_that_does_not_read_costs_the_producer_its_ring_and_no_more),
      world_test(the_consumer_can_leave_at_any_time),
      world_test(a_producer_that_closes_delivers_first_what_it_had_moved),
      world_test(a_long_message_still_leaves_before_the_producer_closes),
      world_test(a_sync_after_a_long_message_waits_for_its_place),
      world_test(sync_tells_when_every_consumer_has_taken_everything),
      world_test(a_consumer_that_reads_nothing_blocks_or_is_closed_by_the_lag_policy),
      world_test(a_lost_connection_closes_the_subscription_on_both_sides),
      world_test(objects_may_be_freed_in_any_order),
      world_test(a_consumer_resumes_where_it_stopped_if_the_ring_still_has_it),
      world_test(a_resume_beyond_the_ring_starts_with_an_explicit_gap),
      world_test(a_resume_in_another_epoch_or_the_future_starts_at_the_head),
      world_test(payloads_of_every_kind_of_length_arrive_whole),
      memory_test(any_allocation_may_fail),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
