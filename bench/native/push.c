/*
 * The load generator for push: `push --port N --mode stream --publish PATH --subscribe PATH …`. Opens its subscribers,
 * publishes for `--warmup` and then `--seconds`, checks every message that every subscriber gets, and prints one line of
 * JSON. Anything unexpected ends it with a sentence and 1.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "push.h"

/* More at once could overflow a listener's backlog, which costs a second for each SYN that is lost. */
#define opening_at_once 64
/* What the first subscribers cost once, such as a young generation of full size, is not what each one costs. */
#define idle_beforehand 1000
/* For replay: how many messages each newcomer gets. */
#define replayed 1000

struct options options = {.connections = 1000, .size = 256, .batch = 1, .kept = 1000000, .topics = 100,
                          .warmup = 0.5, .seconds = 2, .limit = 60};

static int loop;
static struct processes processes;
static struct connection *subscribers, publisher;
static int subscriber_count, opening_count, ready_count;
static bool measuring;
static long messages;
static long published;          /* messages, of all rounds */
static int lacking, unanswered; /* subscribers that have not got all of this round, and publishing requests */
static double round_since;
static char input[1 << 18];
static char publish_head[512];

/* ---- connections ---- */

static void watch(struct connection *c, int operation) {
  struct epoll_event event = {.events = EPOLLIN | (c->waits_for_room ? (uint32_t)EPOLLOUT : 0), .data.ptr = c};
  epoll_ctl(loop, operation, c->fd, &event);
}

static void wait_for_room(struct connection *c, bool wait) {
  if (c->waits_for_room == wait) return;
  c->waits_for_room = wait;
  watch(c, EPOLL_CTL_MOD);
}

static void open_connection(struct connection *c, enum role role) {
  memset(c, 0, sizeof *c);
  c->role = role;
  c->waits_for_room = true;
  c->opened_at = now();
  c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
  if (c->fd < 0) fail("socket: %s", strerror(errno));
  int one = 1;
  setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  struct sockaddr_in address = {
      .sin_family = AF_INET, .sin_port = htons((uint16_t)options.port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  if (connect(c->fd, (struct sockaddr *)&address, sizeof address) < 0 && errno != EINPROGRESS)
    fail("connect: %s", strerror(errno));
  watch(c, EPOLL_CTL_ADD);
}

static void close_connection(struct connection *c) {
  close(c->fd);
  free(c->out);
  free(c->body);
  free(c->reading.part);
  c->out = c->body = c->reading.part = NULL;
}

static void flush(struct connection *c) {
  while (c->out_left > 0) {
    ssize_t sent = send(c->fd, c->out + c->out_at, c->out_left, MSG_NOSIGNAL);
    if (sent < 0 && errno == EAGAIN) return wait_for_room(c, true);
    if (sent < 0) fail("the connection broke while writing");
    c->out_at += (size_t)sent;
    c->out_left -= (size_t)sent;
  }
  wait_for_room(c, false);
}

/* Room for a request of `size` bytes, which `request_end` sends. */
static char *request_begin(struct connection *c, size_t size) {
  if (c->out_left > 0) fail("the last request has not been sent yet");
  if (c->out_size < size) c->out = realloc(c->out, c->out_size = size);
  c->out_at = 0;
  return c->out;
}

static void request_end(struct connection *c, size_t length) {
  c->out_left = length;
  flush(c);
}

/* ---- subscribing ---- */

static void become_ready(struct connection *c) {
  c->ready = true;
  ready_count++;
  opening_count--;
}

/* Asks for what `options.subscribe` names, which may have the subscriber's number, or for replay the topic's, in it. */
static void subscribe(struct connection *c, long number) {
  char path[512];
  if (snprintf(path, sizeof path, options.subscribe, number) >= (int)sizeof path) fail("--subscribe is too long");
  char *request = request_begin(c, 1024), validators[sizeof c->cursor] = "", cursor[sizeof c->cursor + 16] = "";
  if (options.mode == mode_poll && options.cursor == cursor_validators)
    snprintf(validators, sizeof validators, "%s", c->cursor);
  else if (c->cursor[0])
    snprintf(cursor, sizeof cursor, "&cursor=%s", c->cursor);
  int length = snprintf(request, 1024, "GET %s%s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nAccept: %s\r\n%s\r\n", path, cursor,
                        options.port, options.mode == mode_poll ? "*/*" : "text/event-stream", validators);
  if (length >= 1024) fail("a request is too long");
  request_end(c, (size_t)length);
}

/* Nchan: what came as Last-Modified and Etag names the message after which to go on. */
static void keep_validators(struct connection *c) {
  char modified[64], tag[64];
  header_of(&c->response, "last-modified", modified, sizeof modified);
  header_of(&c->response, "etag", tag, sizeof tag);
  snprintf(c->cursor, sizeof c->cursor, "If-Modified-Since: %s\r\nIf-None-Match: %s\r\n", modified, tag);
}

static void keep_cursor(struct connection *c) {
  static const char name[] = "\"cursor\":\"";
  char *found = memmem(c->body, c->body_length, name, sizeof name - 1), *value = found + sizeof name - 1;
  char *end = found ? memchr(value, '"', (size_t)(c->body + c->body_length - value)) : NULL;
  if (!end) fail("an answer has no cursor: %.*s", (int)(c->body_length < 200 ? c->body_length : 200), c->body);
  snprintf(c->cursor, sizeof c->cursor, "%.*s", (int)(end - value), value);
}

/* ---- publishing ---- */

/* Messages go as so many requests on one connection, without waiting for each one's answer. */
static void publish_round(void) {
  size_t head = strlen(publish_head), each = head + options.size;
  char *request = request_begin(&publisher, (size_t)options.batch * each);
  for (int i = 0; i < options.batch; i++) {
    memcpy(request + (size_t)i * each, publish_head, head);
    put_message(request + (size_t)i * each + head, published++);
  }
  lacking = subscriber_count;
  unanswered = options.batch;
  round_since = now();
  request_end(&publisher, (size_t)options.batch * each);
}

static void end_round(void) {
  if (lacking == 0 && unanswered == 0) publish_round();
}

static void on_received(struct connection *c, long before) {
  long received = c->reading.received;
  if (measuring) messages += received - before;
  if (options.mode == mode_replay || before == received || received < published) return;
  if (--lacking > 0) return;
  if (measuring) record_latency(now() - round_since);
  end_round();
}

/* ---- what responses tell ---- */

void on_head(struct connection *c) {
  const char *head = c->response.head;
  if (strncmp(head, c->role == role_publisher ? "HTTP/1.1 20" : "HTTP/1.1 200", c->role == role_publisher ? 11 : 12) != 0)
    fail("an answer is %.600s", head);
}

void on_body(struct connection *c, const char *bytes, size_t length) {
  if (c->role == role_publisher) return;
  if (options.mode != mode_poll) {
    long before = c->reading.received;
    /* Something comes at once from all of them: a comment. */
    if (!c->ready) become_ready(c);
    read_stream(&c->reading, bytes, length);
    return on_received(c, before);
  }
  if (c->body_length + length > c->body_size) c->body = realloc(c->body, c->body_size = 2 * (c->body_length + length));
  memcpy(c->body + c->body_length, bytes, length);
  c->body_length += length;
}

void on_complete(struct connection *c) {
  if (c->role == role_publisher) {
    unanswered--;
    return end_round();
  }
  if (options.mode != mode_poll) fail("an event stream ended");
  long before = c->reading.received;
  read_body(&c->reading, c->body, c->body_length);
  if (options.cursor == cursor_body) keep_cursor(c);
  else if (c->reading.received > before) keep_validators(c);
  c->body_length = 0;
  subscribe(c, c - subscribers);
  on_received(c, before);
}

static void on_connected(struct connection *c) {
  int error = 0;
  socklen_t length = sizeof error;
  getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &length);
  if (error) fail("connect: %s", strerror(error));
  c->connected = true;
  wait_for_room(c, false);
  if (c->role == role_publisher) return become_ready(c);
  if (options.mode != mode_replay) subscribe(c, c - subscribers);
  if (options.mode == mode_poll) become_ready(c);
}

static void on_event(struct connection *c, uint32_t events) {
  if (!c->connected) return on_connected(c);
  if (events & (EPOLLIN | EPOLLHUP | EPOLLERR)) {
    ssize_t length = recv(c->fd, input, sizeof input, 0);
    if (length == 0 || (length < 0 && errno != EAGAIN)) fail("the server closed a connection");
    if (length > 0) receive_response(c, input, (size_t)length);
  }
  if (events & EPOLLOUT) flush(c);
}

/* ---- time ---- */

static void turn(int milliseconds) {
  struct epoll_event events[512];
  int count = epoll_wait(loop, events, 512, milliseconds);
  for (int i = 0; i < count; i++) on_event(events[i].data.ptr, events[i].events);
}

static void run_for(double seconds) {
  double end = now() + seconds;
  for (double left = seconds; left > 0; left = end - now()) turn((int)(1e3 * left) + 1);
}

/* Opens connections and waits until they are ready. */
static void open_all(struct connection *connections, int count, enum role role) {
  int ready_before = ready_count;
  for (int next = 0; ready_count - ready_before < count; turn(1)) {
    while (next < count && opening_count < opening_at_once) {
      opening_count++;
      open_connection(&connections[next++], role);
    }
  }
}

static void tell(double seconds, double share) {
  struct work work = {.seconds = seconds,
                      .messages = messages,
                      .bytes = (long long)messages * (long long)options.size,
                      .share = share,
                      .cipher = ""};
  report(&work, &processes);
}

static void measure_fan_out(void) {
  if (options.idle > 0) {
    open_all(subscribers, idle_beforehand, role_subscriber);
    run_for(0.5);
    sample(&processes, processes.before_idle);
    open_all(subscribers + idle_beforehand, options.idle, role_subscriber);
    run_for(1);
    sample(&processes, processes.after_idle);
  } else {
    open_all(subscribers, subscriber_count, role_subscriber);
  }
  open_all(&publisher, 1, role_publisher);
  /* A poll that has been asked is not yet one that waits. */
  run_for(0.5);
  publish_round();
  run_for(options.warmup);
  sample_all(&processes);
  measuring = true;
  double start = now();
  run_for(options.seconds);
  if (messages == 0 && lacking > 0)
    fail("message %ld has not reached %d subscribers after %.1f s", published - 1, lacking, now() - round_since);
  tell(now() - start, 1);
}

/* ---- replay ---- */

/* A newcomer; returns the time from its request to its first message, in seconds. */
static double replay(long number) {
  struct connection *c = &subscribers[0];
  open_connection(c, role_subscriber);
  while (!c->connected) turn(10);
  c->reading.next = options.kept / options.topics - replayed;
  double start = now(), first = 0;
  subscribe(c, number % options.topics);
  while (c->reading.received < replayed) {
    turn(10);
    if (first == 0 && c->reading.received > 0) first = now() - start;
  }
  close_connection(c);
  return first;
}

static void measure_replay(void) {
  sample_all(&processes);
  measuring = true;
  double start = now();
  for (long number = 0; now() - start < options.seconds; number++) record_latency(replay(number));
  tell(now() - start, 1);
}

/* ---- options ---- */

static void read_options(int argc, char **argv) {
  static const char *const modes[] = {"stream", "poll", "replay", NULL};
  static const char *const cursors[] = {"body", "validators", NULL};
  static const struct option names[] = {
      {"port", 1, NULL, 'p'},  {"mode", 1, NULL, 'm'},   {"cursor", 1, NULL, 'C'},  {"publish", 1, NULL, 'u'},
      {"subscribe", 1, NULL, 'S'}, {"connections", 1, NULL, 'c'}, {"idle", 1, NULL, 'i'}, {"size", 1, NULL, 's'},
      {"batch", 1, NULL, 'b'}, {"kept", 1, NULL, 'k'},   {"topics", 1, NULL, 't'},  {"warmup", 1, NULL, 'w'},
      {"seconds", 1, NULL, 'd'}, {"limit", 1, NULL, 'l'}, {"pid", 1, NULL, 'P'},    {NULL, 0, NULL, 0}};
  int option;
  while ((option = getopt_long(argc, argv, "", names, NULL)) != -1) {
    switch (option) {
      case 'p': options.port = atoi(optarg); break;
      case 'm': options.mode = (enum mode)choice("mode", optarg, modes); break;
      case 'C': options.cursor = (enum cursor)choice("cursor", optarg, cursors); break;
      case 'u': options.publish = optarg; break;
      case 'S': options.subscribe = optarg; break;
      case 'c': options.connections = atoi(optarg); break;
      case 'i': options.idle = atoi(optarg); break;
      case 's': options.size = (size_t)atol(optarg); break;
      case 'b': options.batch = atoi(optarg); break;
      case 'k': options.kept = atoi(optarg); break;
      case 't': options.topics = atoi(optarg); break;
      case 'w': options.warmup = atof(optarg); break;
      case 'd': options.seconds = atof(optarg); break;
      case 'l': options.limit = atoi(optarg); break;
      case 'P': add_process(&processes, atoi(optarg)); break;
      default: exit(64);
    }
  }
  if (options.port <= 0 || options.size < 16 || options.size > 65536 || options.batch < 1 || options.connections < 1)
    fail("needs --port, --size from 16 to 65536, --batch and --connections from 1");
  if (!options.publish || !options.subscribe) fail("needs --publish and --subscribe");
  if (options.mode == mode_replay && options.kept / options.topics < replayed)
    fail("--kept must be %d times --topics, at least", replayed);
}

int main(int argc, char **argv) {
  read_options(argc, argv);
  bound_process(options.limit);
  loop = epoll_create1(0);
  subscriber_count = options.mode == mode_replay ? 1 : options.idle > 0 ? options.idle + idle_beforehand : options.connections;
  raise_file_limit(subscriber_count + 32);
  make_pattern();
  snprintf(publish_head, sizeof publish_head,
           "POST %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nContent-Type: text/plain\r\nContent-Length: %zu\r\n\r\n",
           options.publish, options.port, options.size);
  subscribers = calloc((size_t)subscriber_count, sizeof *subscribers);
  if (options.mode == mode_replay) measure_replay();
  else measure_fan_out();
  /* Everything is closed by the end of the process. */
  fflush(stdout);
  _exit(0);
}
