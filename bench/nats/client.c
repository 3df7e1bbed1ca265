/*
 * What libnats gives a C program: the baseline of bench/nats.lua. URL is that of a server.
 *
 *   nats_client publish URL SUBJECT COUNT SIZE      core messages, then a flush
 *   nats_client consume URL SUBJECT COUNT           a subscription with a callback
 *   nats_client js_publish URL SUBJECT COUNT SIZE   js_PublishAsync, until all are confirmed
 *   nats_client js_publish_sync URL SUBJECT COUNT SIZE   js_Publish, one after the other
 *   nats_client js_consume URL STREAM SUBJECT COUNT a pull subscription, one acknowledgement each
 *
 * Consumers print `ready=1` once they are subscribed. Each prints at the end
 *
 *   messages=N seconds=S cpu=S
 *
 * where seconds are, of consumers, those from the first message to the last.
 */
#include <nats/nats.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
  FETCH = 256
};

static void check(natsStatus status, const char *what) {
  if (status == NATS_OK) return;
  fprintf(stderr, "nats_client: %s: %s\n", what, natsStatus_GetText(status));
  exit(1);
}

static double now(void) { return (double)nats_NowInNanoSeconds() / 1e9; }

static void report(long count, double seconds) {
  printf("messages=%ld seconds=%.6f cpu=%.3f\n", count, seconds, (double)clock() / CLOCKS_PER_SEC);
  fflush(stdout);
}

static void ready(natsConnection *nc) {
  check(natsConnection_Flush(nc), "flush");
  printf("ready=1\n");
  fflush(stdout);
}

static long number(const char *text) {
  char *end;
  long value = strtol(text, &end, 10);
  if (*end == '\0' && value > 0 && value < INT32_MAX) return value;
  fprintf(stderr, "nats_client: '%s' is no number\n", text);
  exit(2);
}

static char *payload(int size) {
  char *bytes = malloc(size > 0 ? (size_t)size : 1);
  if (bytes == NULL) abort();
  memset(bytes, 'x', (size_t)size);
  return bytes;
}

static void publish(natsConnection *nc, const char *subject, long count, int size) {
  char *bytes = payload(size);
  double begin = now();
  for (long i = 0; i < count; i++) {
    check(natsConnection_Publish(nc, subject, bytes, size), "publish");
  }
  check(natsConnection_FlushTimeout(nc, 60000), "flush");
  report(count, now() - begin);
  free(bytes);
}

typedef struct tally {
  long wanted, count;
  double begin, end;
  volatile int done;
} tally;

static void on_message(natsConnection *nc, natsSubscription *sub, natsMsg *msg, void *arg) {
  tally *sum = arg;
  (void)nc;
  (void)sub;
  if (sum->count == 0) sum->begin = now();
  natsMsg_Destroy(msg);
  if (++sum->count == sum->wanted) {
    sum->end = now();
    sum->done = 1;
  }
}

static void consume(natsConnection *nc, const char *subject, long count) {
  tally sum = {.wanted = count};
  natsSubscription *sub = NULL;
  check(natsConnection_Subscribe(&sub, nc, subject, on_message, &sum), "subscribe");
  check(natsSubscription_SetPendingLimits(sub, -1, -1), "limits");
  ready(nc);
  while (!sum.done)
    nats_Sleep(1);
  report(sum.count, sum.end - sum.begin);
  natsSubscription_Destroy(sub);
}

static void js_publish(natsConnection *nc, const char *subject, long count, int size) {
  jsCtx *js = NULL;
  char *bytes = payload(size);
  check(natsConnection_JetStream(&js, nc, NULL), "JetStream");
  double begin = now();
  for (long i = 0; i < count; i++) {
    check(js_PublishAsync(js, subject, bytes, size, NULL), "publish");
  }
  jsPubOptions options;
  jsPubOptions_Init(&options);
  options.MaxWait = 60000;
  check(js_PublishAsyncComplete(js, &options), "confirmation");
  report(count, now() - begin);
  jsCtx_Destroy(js);
  free(bytes);
}

static void js_publish_sync(natsConnection *nc, const char *subject, long count, int size) {
  jsCtx *js = NULL;
  char *bytes = payload(size);
  check(natsConnection_JetStream(&js, nc, NULL), "JetStream");
  double begin = now();
  for (long i = 0; i < count; i++) {
    check(js_Publish(NULL, js, subject, bytes, size, NULL, NULL), "publish");
  }
  report(count, now() - begin);
  jsCtx_Destroy(js);
  free(bytes);
}

static void js_consume(natsConnection *nc, const char *stream, const char *subject, long count) {
  jsCtx *js = NULL;
  natsSubscription *sub = NULL;
  jsSubOptions options;
  check(natsConnection_JetStream(&js, nc, NULL), "JetStream");
  jsSubOptions_Init(&options);
  options.Stream = stream;
  check(js_PullSubscribe(&sub, js, subject, "c", NULL, &options, NULL), "subscribe");
  ready(nc);
  long got = 0;
  double begin = 0;
  while (got < count) {
    natsMsgList list = {0};
    check(natsSubscription_Fetch(&list, sub, FETCH, 10000, NULL), "fetch");
    if (got == 0) begin = now();
    for (int i = 0; i < list.Count; i++)
      check(natsMsg_Ack(list.Msgs[i], NULL), "ack");
    got += list.Count;
    natsMsgList_Destroy(&list);
  }
  check(natsConnection_FlushTimeout(nc, 60000), "flush");
  report(got, now() - begin);
  natsSubscription_Destroy(sub);
  jsCtx_Destroy(js);
}

int main(int argc, char **argv) {
  natsConnection *nc = NULL;
  if (argc < 5) {
    fprintf(stderr, "nats_client: see the head of bench/nats/client.c\n");
    return 2;
  }
  check(natsConnection_ConnectTo(&nc, argv[2]), "connect");
  if (strcmp(argv[1], "publish") == 0 && argc == 6) {
    publish(nc, argv[3], number(argv[4]), (int)number(argv[5]));
  } else if (strcmp(argv[1], "consume") == 0) {
    consume(nc, argv[3], number(argv[4]));
  } else if (strcmp(argv[1], "js_publish") == 0 && argc == 6) {
    js_publish(nc, argv[3], number(argv[4]), (int)number(argv[5]));
  } else if (strcmp(argv[1], "js_publish_sync") == 0 && argc == 6) {
    js_publish_sync(nc, argv[3], number(argv[4]), (int)number(argv[5]));
  } else if (strcmp(argv[1], "js_consume") == 0 && argc == 6) {
    js_consume(nc, argv[3], argv[4], number(argv[5]));
  } else {
    return 2;
  }
  natsConnection_Destroy(nc);
  return 0;
}
