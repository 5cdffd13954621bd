/* Messages that show by themselves whether they are the right ones: a mark, their number, and a pattern to the end. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "push.h"

/* Occurs nowhere else in what a server sends. */
#define mark '~'
#define digits 10
#define largest_size 65536

static char pattern[largest_size];

/* Letters that need no escaping in JSON or in an event stream. */
void make_pattern(void) {
  uint32_t x = 2463534242u;
  for (size_t i = 0; i < sizeof pattern; i++) {
    x ^= x << 13, x ^= x >> 17, x ^= x << 5;
    pattern[i] = (char)('a' + x % 26);
  }
}

void put_message(char *to, long number) {
  memcpy(to, pattern, options.size);
  to[0] = mark;
  for (int i = digits; i > 0; i--, number /= 10) to[i] = (char)('0' + number % 10);
}

static void check(struct reading *reading, const char *payload) {
  long number = 0;
  for (int i = 1; i <= digits; i++) number = number * 10 + (payload[i] - '0');
  if (number != reading->next) fail("message %ld came, and %ld was due", number, reading->next);
  if (memcmp(payload + 1 + digits, pattern + 1 + digits, options.size - 1 - digits) != 0)
    fail("message %ld has wrong bytes", number);
  reading->next++;
}

/* Returns how many bytes were taken; the payload is whole when `place` is `after`. */
static size_t take_payload(struct reading *reading, const char *bytes, size_t length) {
  if (reading->part_length == 0 && length >= options.size) {
    check(reading, bytes);
    reading->place = after;
    return options.size;
  }
  if (!reading->part) reading->part = malloc(options.size);
  size_t run = options.size - reading->part_length;
  if (run > length) run = length;
  memcpy(reading->part + reading->part_length, bytes, run);
  reading->part_length += run;
  if (reading->part_length < options.size) return run;
  check(reading, reading->part);
  free(reading->part);
  reading->part = NULL;
  reading->part_length = 0;
  reading->place = after;
  return run;
}

/* Returns the byte after the next line's end, or `end`. */
static const char *after_line(struct reading *reading, const char *at, const char *end) {
  if (reading->line_ended && *at == '\n') {
    reading->place = between;
    reading->received++;
    return at + 1;
  }
  const char *newline = memchr(at, '\n', (size_t)(end - at));
  reading->line_ended = newline != NULL;
  return newline ? newline + 1 : end;
}

void read_stream(struct reading *reading, const char *bytes, size_t length) {
  const char *at = bytes, *end = bytes + length;
  while (at < end) {
    if (reading->place == between) {
      at = memchr(at, mark, (size_t)(end - at));
      if (!at) return;
      reading->place = within;
    }
    if (reading->place == within) {
      at += take_payload(reading, at, (size_t)(end - at));
      reading->line_ended = false;
    } else {
      at = after_line(reading, at, end);
    }
  }
}

void read_body(struct reading *reading, const char *bytes, size_t length) {
  const char *at = bytes, *end = bytes + length;
  while ((at = memchr(at, mark, (size_t)(end - at)))) {
    if ((size_t)(end - at) < options.size) fail("a body ends within a message");
    check(reading, at);
    reading->received++;
    at += options.size;
  }
}
