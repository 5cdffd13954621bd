/* What is sent and what has to come back, built before the clock starts. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "load.h"

#define binary 2
#define longest_header 14
#define topic "bench/topic"
#define longest_answer 256

/* Bytes that look random and are the same in upstream.c. */
void fill_block(unsigned char *block) {
  uint32_t x = 2463534242u;
  for (size_t i = 0; i < block_size; i++) {
    x ^= x << 13, x ^= x >> 17, x ^= x << 5;
    block[i] = (unsigned char)x;
  }
}

static size_t put_remaining_length(unsigned char *to, size_t length) {
  size_t at = 0;
  do {
    to[at++] = (unsigned char)((length & 0x7f) | (length > 0x7f ? 0x80 : 0));
    length >>= 7;
  } while (length > 0);
  return at;
}

static size_t put_string(unsigned char *to, const char *text) {
  size_t length = strlen(text);
  to[0] = (unsigned char)(length >> 8);
  to[1] = (unsigned char)length;
  memcpy(to + 2, text, length);
  return length + 2;
}

/* A PUBLISH with `size` bytes of payload (MQTT 3.1.1 §3.3), in MQTT 5 without properties; packet identifier 1 at QoS 1. */
static size_t put_publish(unsigned char *to, const unsigned char *payload, int qos) {
  size_t at = 0;
  to[at++] = (unsigned char)(0x30 | qos << 1);
  at += put_remaining_length(to + at, 2 + strlen(topic) + (qos > 0 ? 2 : 0) + (options.version == 5) + options.size);
  at += put_string(to + at, topic);
  if (qos > 0) to[at++] = 0, to[at++] = 1;
  if (options.version == 5) to[at++] = 0;
  memcpy(to + at, payload, options.size);
  return at + options.size;
}

/* Frames of `size` bytes that carry one block together. */
static void make_up(struct exchange *exchange, const unsigned char *block) {
  exchange->send = malloc(block_size + (block_size / options.size + 1) * longest_header);
  for (size_t at = 0; at < block_size; at += options.size)
    exchange->send_length += frame_append(exchange->send + exchange->send_length, block + at, options.size, binary);
  exchange->expect = (unsigned char *)"K";
  exchange->expect_length = 1;
  exchange->messages = (long)(block_size / options.size);
}

static void make_messages(struct exchange *exchange, const unsigned char *block) {
  size_t count = (size_t)options.batch, longest = options.size + 32;
  exchange->send = malloc(count * (longest + longest_header));
  exchange->expect = malloc(count * longest);
  exchange->messages = options.batch;
  unsigned char *message = malloc(longest);
  for (size_t i = 0; i < count; i++) {
    size_t length = options.size;
    /* Each message differs from its neighbours, so that one in the wrong place is noticed. */
    const unsigned char *payload = block + i * 61 % (block_size - options.size + 1);
    if (options.mode == mode_echo) memcpy(message, payload, length);
    else length = put_publish(message, payload, options.mode == mode_qos1 ? 1 : 0);
    exchange->send_length += frame_append(exchange->send + exchange->send_length, message, length, binary);
    if (options.mode == mode_qos1) {
      memcpy(exchange->expect + exchange->expect_length, "\x40\x02\x00\x01", 4); /* PUBACK */
      length = 4;
    } else {
      memcpy(exchange->expect + exchange->expect_length, message, length);
    }
    exchange->expect_length += length;
  }
  free(message);
}

struct exchange make_exchange(void) {
  static unsigned char block[block_size];
  fill_block(block);
  struct exchange exchange = {0};
  if (options.mode == mode_up) {
    make_up(&exchange, block);
  } else if (options.mode == mode_down) {
    exchange.expect = block;
    exchange.expect_length = block_size;
    exchange.messages = 1;
  } else {
    make_messages(&exchange, block);
  }
  return exchange;
}

/*
 * CONNECT, and SUBSCRIBE where asked: one frame each, sent together. The answers of MQTT 5 have properties and reason codes that differ
 * from broker to broker: a PUBLISH of QoS 1, where asked, shows the PUBACK that will come back for the others.
 */
struct exchange make_greeting(long number, bool subscribe, bool publish) {
  bool five = options.version == 5;
  char id[24];
  snprintf(id, sizeof id, "bench-%08ld", number);
  unsigned char packet[64];
  struct exchange greeting = {.send = malloc(256 + (publish ? options.size : 0)), .answers = 1 + subscribe + (five && publish)};
  size_t length = 0;
  packet[length++] = 0x10;
  packet[length++] = (unsigned char)(10 + five + 2 + strlen(id));
  length += put_string(packet + length, "MQTT");
  packet[length++] = (unsigned char)options.version;
  packet[length++] = 2;                       /* clean session */
  packet[length++] = 0, packet[length++] = 0; /* no keep-alive */
  if (five) packet[length++] = 0;             /* no properties */
  length += put_string(packet + length, id);
  greeting.send_length = frame_append(greeting.send, packet, length, binary);
  static unsigned char answers[] = {0x20, 2, 0, 0, 0x90, 3, 0, 1, 0}; /* CONNACK, SUBACK */
  greeting.expect = answers;
  greeting.expect_length = subscribe ? sizeof answers : 4;
  if (five && publish) {
    unsigned char *message = calloc(1, options.size + 64), *payload = message + 64;
    size_t size = put_publish(message, payload, 1);
    greeting.send_length += frame_append(greeting.send + greeting.send_length, message, size, binary);
    free(message);
  }
  if (!subscribe) return greeting;
  length = 0;
  packet[length++] = 0x82;
  packet[length++] = (unsigned char)(2 + five + 2 + strlen(topic) + 1);
  packet[length++] = 0, packet[length++] = 1;
  if (five) packet[length++] = 0;
  length += put_string(packet + length, topic);
  packet[length++] = 0; /* QoS 0 */
  greeting.send_length += frame_append(greeting.send + greeting.send_length, packet, length, binary);
  return greeting;
}

/* The length of the packet that `bytes` begin with, or 0 while its remaining length is not whole. */
static size_t packet_length(const unsigned char *bytes, size_t length, size_t *body) {
  size_t remaining = 0;
  for (size_t at = 1; at < length && at < 5; at++) {
    remaining |= (size_t)(bytes[at] & 0x7f) << 7 * (at - 1);
    *body = at + 1;
    if (bytes[at] < 0x80) return at + 1 + remaining;
  }
  return 0;
}

static void take_answer(const unsigned char *packet, size_t length, size_t body) {
  unsigned char code = packet[0] == 0x20 ? packet[body + 1] : packet[0] == 0x90 ? packet[length - 1] : 0;
  if (code >= 0x80) fail("the broker refuses with reason code 0x%02x", code);
  if (packet[0] == 0x40) on_puback(packet, length);
  else if (packet[0] != 0x20 && packet[0] != 0x90) fail("no answer to a greeting: 0x%02x", packet[0]);
}

/* Takes the answers to a greeting of MQTT 5, of unknown lengths; returns how many bytes they are. */
size_t receive_greeting(struct connection *c, const unsigned char *bytes, size_t length) {
  if (!c->response) c->response = calloc(1, longest_answer);
  unsigned char *answer = (unsigned char *)c->response;
  size_t taken = 0;
  while (taken < length && c->answers_left > 0) {
    if (c->response_length == longest_answer) fail("an answer is too long");
    answer[c->response_length++] = bytes[taken++];
    size_t body = 0, size = packet_length(answer, c->response_length, &body);
    if (size == 0 || c->response_length < size) continue;
    take_answer(answer, size, body);
    c->response_length = 0;
    c->answers_left--;
  }
  if (c->answers_left > 0) return taken;
  free(c->response);
  c->response = NULL;
  on_expected(c);
  return taken;
}
