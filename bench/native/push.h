/* The parts of the load generator for push, and what they share. One thread, one epoll loop, plain HTTP/1.1. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "process.h"
#include "report.h"

enum mode {
  mode_stream, /* subscribers read one answer that never ends (Server-Sent Events) */
  mode_poll,   /* subscribers ask again as soon as they have an answer */
  mode_replay  /* one after the other comes, and gets what is kept */
};

/* How a poll says where it goes on: with what the last answer's body calls `cursor`, or with its validators. */
enum cursor { cursor_body, cursor_validators };

struct options {
  int port;
  enum mode mode;
  enum cursor cursor;
  const char *publish, *subscribe; /* paths, the latter with a query */
  int connections;                 /* subscribers */
  int idle;                        /* instead of those: after which growth memory is compared */
  size_t size;                     /* payload bytes of a message */
  int batch;                       /* messages of a round */
  int kept, topics;                /* for replay: how many messages there are, of how many topics */
  double warmup, seconds;
  int limit; /* seconds after which the whole process ends, whatever happens */
};

extern struct options options;

/* An HTTP response as far as it has come; RFC 9112 §6. */
struct response {
  enum { part_head, part_length, part_chunk_size, part_chunk, part_chunk_end, part_trailer, part_stream } part;
  char head[1024];
  size_t head_length;
  uint64_t left; /* bytes of this body or chunk */
};

/* Where a subscriber is within the messages that it gets. */
struct reading {
  enum { between, within, after } place; /* of a message: its payload, and what is yet to come before it counts */
  bool line_ended;
  char *part; /* of a payload that goes on in the next read */
  size_t part_length;
  long next;     /* the number that the next message has to have */
  long received; /* messages that have come whole */
};

enum role { role_subscriber, role_publisher };

struct connection {
  int fd;
  enum role role;
  bool connected, ready, waits_for_room;
  char *out; /* what is left to write, and its own */
  size_t out_left, out_at, out_size;
  struct response response;
  struct reading reading;
  char *body; /* of a poll's answer */
  size_t body_length, body_size;
  char cursor[192];
  double opened_at;
};

/* messages.c */
void make_pattern(void);
void put_message(char *to, long number);
/* Reads messages of a stream, which count when their event has ended with an empty line. */
void read_stream(struct reading *reading, const char *bytes, size_t length);
/* Reads the messages of a whole body. */
void read_body(struct reading *reading, const char *bytes, size_t length);

/* response.c */
void receive_response(struct connection *c, const char *bytes, size_t length);
/* Copies a header's value; `to` is empty where there is none. */
void header_of(const struct response *response, const char *name, char *to, size_t size);

/* push.c: what a response tells */
void on_head(struct connection *c);
void on_body(struct connection *c, const char *bytes, size_t length);
void on_complete(struct connection *c);
