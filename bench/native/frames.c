/* WebSocket frames (RFC 6455 §5): built masked, as a client's; received with a walk from header to header. */
#include <string.h>

#include "load.h"

/* Appends a client's frame, or a server's where no server is in between. Returns its length. */
size_t frame_append(unsigned char *to, const unsigned char *payload, size_t length, int opcode) {
  if (options.framing == framing_none) {
    memcpy(to, payload, length);
    return length;
  }
  bool masked = options.framing == framing_websocket;
  size_t at = 0;
  to[at++] = (unsigned char)(0x80 | opcode);
  unsigned char mask_bit = masked ? 0x80 : 0;
  if (length < 126) {
    to[at++] = (unsigned char)(mask_bit | length);
  } else if (length < 65536) {
    to[at++] = mask_bit | 126;
    to[at++] = (unsigned char)(length >> 8);
    to[at++] = (unsigned char)length;
  } else {
    to[at++] = mask_bit | 127;
    for (int shift = 56; shift >= 0; shift -= 8) to[at++] = (unsigned char)((uint64_t)length >> shift);
  }
  if (!masked) {
    memcpy(to + at, payload, length);
    return at + length;
  }
  /* A mask of its own for each frame, as RFC 6455 §5.3 asks. */
  static uint32_t x = 88172645u;
  x ^= x << 13, x ^= x >> 17, x ^= x << 5;
  unsigned char mask[4] = {(unsigned char)x, (unsigned char)(x >> 8), (unsigned char)(x >> 16), (unsigned char)(x >> 24)};
  memcpy(to + at, mask, 4);
  at += 4;
  for (size_t i = 0; i < length; i++) to[at + i] = payload[i] ^ mask[i & 3];
  return at + length;
}

/* Compares what has come with what had to come. */
void receive_payload(struct connection *c, const unsigned char *bytes, size_t length) {
  while (length > 0 && c->state != state_leaving && c->state != state_closed) {
    if (c->state == state_greeting && options.version == 5) {
      size_t taken = receive_greeting(c, bytes, length);
      bytes += taken;
      length -= taken;
      continue;
    }
    size_t due = c->expect_length - c->expect_at;
    size_t run = length < due ? length : due;
    if (run == 0) fail("bytes came that nobody had asked for");
    if (memcmp(c->expect + c->expect_at, bytes, run) != 0) fail("wrong bytes came back");
    bytes += run;
    length -= run;
    c->expect_at += run;
    if (c->expect_at < c->expect_length) return;
    c->expect_at = 0;
    on_expected(c);
  }
}

static int header_need(const struct connection *c) {
  if (c->header_length < 2) return 2;
  int length = c->header[1] & 0x7f;
  return length < 126 ? 2 : length == 126 ? 4 : 10;
}

static void begin_frame(struct connection *c) {
  if (c->header[1] & 0x80) fail("a server must not mask (RFC 6455 §5.1)");
  if (c->header[0] & 0x70) fail("a reserved bit is set");
  c->opcode = c->header[0] & 0x0f;
  c->frame_left = c->header[1] & 0x7f;
  if (c->frame_left == 126) c->frame_left = (uint64_t)c->header[2] << 8 | c->header[3];
  if (c->frame_left == 127) {
    c->frame_left = 0;
    for (int i = 2; i < 10; i++) c->frame_left = c->frame_left << 8 | c->header[i];
  }
  c->header_length = 0;
  if (c->opcode == 8 && c->state != state_leaving) fail("the server closed the connection");
}

/* Walks over the frames in `bytes`; a frame may go on in the next read, also within its header. */
void receive_frames(struct connection *c, const unsigned char *bytes, size_t length) {
  while (length > 0) {
    if (c->frame_left == 0) {
      while (length > 0 && c->header_length < header_need(c)) {
        c->header[c->header_length++] = *bytes++;
        length--;
      }
      if (c->header_length < 2 || c->header_length < header_need(c)) return;
      begin_frame(c);
    }
    size_t run = length < c->frame_left ? length : (size_t)c->frame_left;
    if (c->opcode <= 2) receive_payload(c, bytes, run);
    if (c->state == state_closed) return;
    c->frame_left -= run;
    bytes += run;
    length -= run;
  }
}
