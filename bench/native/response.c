/* HTTP/1.1 responses: their heads, and their bodies with a length, in chunks, or without an end (RFC 9112 §6). */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "push.h"

void header_of(const struct response *response, const char *name, char *to, size_t size) {
  size_t length = strlen(name);
  to[0] = 0;
  for (const char *line = response->head; (line = strstr(line, "\r\n"));) {
    line += 2;
    if (strncasecmp(line, name, length) != 0 || line[length] != ':') continue;
    const char *value = line + length + 1, *end = strstr(value, "\r\n");
    while (*value == ' ') value++;
    if (end) snprintf(to, size, "%.*s", (int)(end - value), value);
    return;
  }
}

static void begin_body(struct connection *c) {
  struct response *response = &c->response;
  char value[32];
  header_of(response, "transfer-encoding", value, sizeof value);
  if (strcasecmp(value, "chunked") == 0) {
    response->part = part_chunk_size;
    response->left = 0;
    return;
  }
  header_of(response, "content-length", value, sizeof value);
  response->part = value[0] ? part_length : part_stream;
  response->left = strtoull(value, NULL, 10);
}

static void complete(struct connection *c) {
  c->response.part = part_head;
  c->response.head_length = 0;
  on_complete(c);
}

/* Returns how many bytes were taken. */
static size_t receive_head(struct connection *c, const char *bytes, size_t length) {
  struct response *response = &c->response;
  size_t before = response->head_length, room = sizeof response->head - 1 - before;
  size_t copied = length < room ? length : room;
  memcpy(response->head + before, bytes, copied);
  response->head[before + copied] = 0;
  char *end = strstr(before > 3 ? response->head + before - 3 : response->head, "\r\n\r\n");
  if (!end && copied == room) fail("a head is too long: %.200s", response->head);
  if (!end) {
    response->head_length += copied;
    return copied;
  }
  end[4] = 0;
  response->head_length = (size_t)(end + 4 - response->head);
  begin_body(c);
  on_head(c);
  if (response->part == part_length && response->left == 0) complete(c);
  return (size_t)(end + 4 - response->head) - before;
}

static void end_line(struct connection *c) {
  struct response *response = &c->response;
  if (response->part == part_chunk_size) response->part = response->left > 0 ? part_chunk : part_trailer;
  else if (response->part == part_chunk_end) response->part = part_chunk_size;
  else complete(c);
}

/* One byte of what is around chunks; there are no trailers. */
static void receive_frame(struct connection *c, char byte) {
  if (byte == '\n') return end_line(c);
  if (byte == '\r' || c->response.part != part_chunk_size) return;
  int digit = byte >= '0' && byte <= '9' ? byte - '0' : byte >= 'a' && byte <= 'f' ? byte - 'a' + 10 : byte - 'A' + 10;
  if (digit < 0 || digit > 15) fail("the size of a chunk has a %d in it", byte);
  c->response.left = c->response.left << 4 | (uint64_t)digit;
}

void receive_response(struct connection *c, const char *bytes, size_t length) {
  struct response *response = &c->response;
  while (length > 0) {
    size_t run = 1;
    if (response->part == part_head) {
      run = receive_head(c, bytes, length);
    } else if (response->part == part_stream) {
      on_body(c, bytes, run = length);
    } else if (response->part == part_length || response->part == part_chunk) {
      run = length < response->left ? length : (size_t)response->left;
      response->left -= run;
      on_body(c, bytes, run);
      if (response->left == 0 && response->part == part_chunk) response->part = part_chunk_end;
      else if (response->left == 0) complete(c);
    } else {
      receive_frame(c, *bytes);
    }
    bytes += run;
    length -= run;
  }
}
