/*
 * The load generator: `load --port N --mode echo …`. Opens its connections, runs for `--warmup` and then `--seconds`,
 * checks every byte that comes back, and prints one line of JSON. Anything unexpected ends it with a sentence and 1.
 */
#define _GNU_SOURCE
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "load.h"

/* More at once could overflow a listener's backlog, which costs a second for each SYN that is lost. */
#define opening_at_once 64
/* What the first connections cost once, such as caches and a young generation of full size, is not what each one costs. */
#define idle_beforehand 1000

struct options options = {.connections = 20, .size = 64, .batch = 1, .warmup = 0.5, .seconds = 2, .version = 4, .limit = 60};

static int loop;
static struct processes processes;
static struct exchange exchange;
static struct connection *busy, *idle;
static int busy_count, idle_count;
static int ready_count, opening_count;
static bool running, measuring;
static long messages;
static long greeted;
static long resumed;
static double storm_began;
static int subscribers_left;
static double first_tick;
static long ticks;

/* ---- rounds ---- */

static void start_round(struct connection *c, double at) {
  c->in_round = true;
  c->round_since = at;
  c->sent = options.batch;
  if (exchange.send_length > 0) connection_send(c, exchange.send, exchange.send_length);
}

/* Several messages in flight: as many are sent as have come back, so that a whole batch is always on its way. */
static bool sliding(void) { return options.mode == mode_echo && options.batch > 1 && options.rate == 0; }

void on_received(struct connection *c) {
  if (!sliding() || !c->in_round || c->out_left > 0) return;
  long returned = c->laps * options.batch + (long)(c->expect_at / options.size);
  long room = returned + options.batch - c->sent, position = c->sent % options.batch;
  if (room > options.batch - position) room = options.batch - position;
  if (room == 0) return;
  size_t frame = exchange.send_length / (size_t)options.batch;
  c->sent += room;
  connection_send(c, exchange.send + (size_t)position * frame, (size_t)room * frame);
}

static void publish(void) {
  subscribers_left = busy_count - 1;
  start_round(&busy[busy_count - 1], now());
}

static void on_round(struct connection *c) {
  c->rounds++;
  if (measuring) messages += exchange.messages;
  if (options.mode == mode_down || options.mode == mode_up) return;
  if (options.mode == mode_fanout) {
    if (--subscribers_left > 0) return;
    if (measuring) record_latency(now() - busy[busy_count - 1].round_since);
    return publish();
  }
  double time = now();
  if (measuring) record_latency(time - c->round_since);
  if (sliding()) {
    c->laps++;
    c->round_since = time;
    return;
  }
  c->in_round = false;
  if (!running) return;
  if (options.rate == 0) return start_round(c, time);
  if (c->owed == 0) return;
  c->owed--;
  double due = c->next_due;
  c->next_due += busy_count / options.rate;
  start_round(c, due);
}

/* Starts what is due, to the 50 microseconds of Linux' timer slack: a wakeup for each would cost more than the rounds do.
 * One that cannot start in time counts from when it should have: a slow system gains nothing by making its clients wait.
 * Returns the time of the next. */
static double tick(void) {
  for (;;) {
    double due = first_tick + (double)ticks / options.rate;
    if (due > now()) return due;
    struct connection *c = &busy[ticks++ % busy_count];
    if (!c->in_round) {
      start_round(c, due);
    } else if (c->owed++ == 0) {
      c->next_due = due;
    }
  }
}

static void start_rounds(void) {
  running = true;
  first_tick = now();
  if (options.mode == mode_connect || options.rate > 0) return;
  if (options.mode == mode_fanout) return publish();
  for (int i = 0; i < busy_count; i++) start_round(&busy[i], now());
}

/* ---- what connections tell ---- */

static bool speaks_mqtt(void) {
  return options.mode == mode_connect || options.mode == mode_reconnect || options.mode == mode_fanout ||
         options.mode == mode_qos1;
}

static void become_ready(struct connection *c) {
  c->state = state_ready;
  c->expect_at = 0;
  c->expect = exchange.expect;
  c->expect_length = c->role == role_busy ? exchange.expect_length : 0;
  ready_count++;
  opening_count--;
}

void on_upgraded(struct connection *c) {
  if (!speaks_mqtt()) return become_ready(c);
  c->state = state_greeting;
  bool busy_one = c->role == role_busy;
  struct exchange greeting =
      make_greeting(greeted++, options.mode == mode_fanout && busy_one, options.mode == mode_qos1 && busy_one);
  c->answers_left = greeting.answers;
  c->response_length = 0;
  c->expect = greeting.expect;
  c->expect_length = greeting.expect_length;
  free(c->owned);
  c->owned = greeting.send;
  connection_send(c, greeting.send, greeting.send_length);
}

/* The broker's PUBACK of MQTT 5, with or without a reason code: all others must be as the first one. */
void on_puback(const unsigned char *packet, size_t length) {
  static bool is_known;
  size_t count = (size_t)options.batch;
  if (is_known) {
    if (exchange.expect_length != count * length || memcmp(exchange.expect, packet, length) != 0)
      fail("one PUBACK is not as the other");
    return;
  }
  is_known = true;
  unsigned char *expect = malloc(count * length);
  for (size_t i = 0; i < count; i++) memcpy(expect + i * length, packet, length);
  free(exchange.expect);
  exchange.expect = expect;
  exchange.expect_length = count * length;
}

/* DISCONNECT and a close frame; bare MQTT ends with the connection. */
static void leave(struct connection *c) {
  c->state = state_leaving;
  unsigned char *goodbye = malloc(32);
  size_t length = frame_append(goodbye, (const unsigned char *)"\xe0\x00", 2, 2);
  if (options.framing == framing_websocket)
    length += frame_append(goodbye + length, (const unsigned char *)"\x03\xe8", 2, 8);
  free(c->owned);
  c->owned = goodbye;
  connection_send(c, goodbye, length);
  if (c->state != state_closed && options.framing != framing_websocket) shutdown(c->fd, SHUT_WR);
}

void on_expected(struct connection *c) {
  if (c->state == state_ready) return on_round(c);
  bool connects = options.mode == mode_connect || options.mode == mode_reconnect;
  if (measuring && connects) {
    messages++;
    if (c->resumed) resumed++;
    record_latency(now() - (options.mode == mode_reconnect ? storm_began : c->opened_at));
  }
  if (options.mode != mode_connect || c->role != role_busy) return become_ready(c);
  opening_count--;
  leave(c);
}

void on_sent(struct connection *c) {
  c->out = exchange.send;
  c->out_left = exchange.send_length;
}

void on_end(struct connection *c) {
  if (c->state != state_leaving) fail("the connection ended");
  connection_close(c);
  opening_count++;
  connection_open(c);
}

/* ---- time ---- */

static void run_for(double seconds) {
  double end = now() + seconds;
  for (double time = now(); time < end; time = now()) {
    double next = running && options.rate > 0 ? tick() : end;
    if (next > end) next = end;
    double wait = next - now();
    if (wait < 0) wait = 0;
    struct timespec timeout = {.tv_sec = (time_t)wait, .tv_nsec = (long)(1e9 * (wait - (double)(time_t)wait))};
    struct epoll_event events[512];
    int count = epoll_pwait2(loop, events, 512, &timeout, NULL);
    for (int i = 0; i < count; i++) {
      struct connection *c = events[i].data.ptr;
      if (c->state != state_closed) connection_event(c, events[i].events);
    }
  }
}

/* Opens connections and waits until they are ready; `alarm` bounds it. */
static void open_all(struct connection *connections, int count, enum role role) {
  int ready_before = ready_count;
  for (int next = 0; next < count || (options.mode != mode_connect && ready_count - ready_before < count);) {
    while (next < count && opening_count < opening_at_once) {
      connections[next].role = role;
      opening_count++;
      connection_open(&connections[next++]);
    }
    run_for(0.001);
  }
}

/* How often the connection was served that was served least, against the mean. */
static double least_served(void) {
  long least = -1, sum = 0;
  int count = options.mode == mode_fanout ? busy_count - 1 : busy_count;
  for (int i = 0; i < count; i++) {
    sum += busy[i].rounds;
    if (least < 0 || busy[i].rounds < least) least = busy[i].rounds;
  }
  return sum == 0 ? 0 : (double)least * count / (double)sum;
}

static void measure(void) {
  start_rounds();
  run_for(options.warmup);
  for (int i = 0; i < busy_count; i++) busy[i].rounds = 0;
  sample_all(&processes);
  measuring = true;
  double start = now();
  run_for(options.seconds);
  double end = now();
  /* A round that has not come back yet has taken at least so long: whoever is never served must not go uncounted. */
  bool rounds = options.mode == mode_echo || options.mode == mode_qos1;
  for (int i = 0; rounds && i < busy_count; i++)
    if (busy[i].in_round) record_latency(end - busy[i].round_since);
  struct work work = {
      .seconds = end - start,
      .messages = messages,
      .bytes = (long long)messages * (long long)(options.mode == mode_down ? block_size : options.size),
      .share = least_served(),
      .resumed = messages > 0 ? (double)resumed / (double)messages : 0,
      .cipher = connection_cipher(),
  };
  report(&work, &processes);
}

/* Closes all connections, and opens them again when SIGUSR1 says that the server has been restarted. Stays until it is ended, so
 * that what the server takes for the end of its connections is not counted. */
static void measure_reconnect(void) {
  for (int i = 0; i < busy_count; i++) connection_close(&busy[i]);
  printf("connected\n");
  fflush(stdout);
  sigset_t told;
  sigemptyset(&told);
  sigaddset(&told, SIGUSR1);
  int signal;
  sigwait(&told, &signal);
  sample_all(&processes);
  ready_count = 0;
  measuring = true;
  storm_began = now();
  for (int i = 0; i < busy_count; i++) {
    opening_count++;
    connection_open(&busy[i]);
  }
  while (ready_count < busy_count) run_for(0.0005);
  struct work work = {
      .seconds = now() - storm_began,
      .messages = messages,
      .share = 1,
      .resumed = (double)resumed / (double)messages,
      .cipher = connection_cipher(),
  };
  report(&work, &processes);
  fflush(stdout);
  for (;;) pause();
}

/* ---- options ---- */

static void read_options(int argc, char **argv) {
  static const char *const framings[] = {"websocket", "unmasked", "none", NULL};
  static const char *const modes[] = {"echo", "down", "up", "connect", "fanout", "qos1", "reconnect", NULL};
  static const struct option names[] = {
      {"port", 1, NULL, 'p'},  {"tls", 0, NULL, 't'},     {"framing", 1, NULL, 'f'}, {"mode", 1, NULL, 'm'},
      {"connections", 1, NULL, 'c'}, {"size", 1, NULL, 's'}, {"batch", 1, NULL, 'b'}, {"idle", 1, NULL, 'i'},
      {"rate", 1, NULL, 'r'},  {"warmup", 1, NULL, 'w'},  {"seconds", 1, NULL, 'd'}, {"limit", 1, NULL, 'l'},
      {"pid", 1, NULL, 'P'},   {"resume", 0, NULL, 'R'},  {"version", 1, NULL, 'v'}, {NULL, 0, NULL, 0}};
  int option;
  while ((option = getopt_long(argc, argv, "", names, NULL)) != -1) {
    switch (option) {
      case 'p': options.port = atoi(optarg); break;
      case 't': options.tls = true; break;
      case 'R': options.resume = true; break;
      case 'f': options.framing = (enum framing)choice("framing", optarg, framings); break;
      case 'm': options.mode = (enum mode)choice("mode", optarg, modes); break;
      case 'c': options.connections = atoi(optarg); break;
      case 's': options.size = (size_t)atol(optarg); break;
      case 'b': options.batch = atoi(optarg); break;
      case 'i': options.idle = atoi(optarg); break;
      case 'r': options.rate = atof(optarg); break;
      case 'w': options.warmup = atof(optarg); break;
      case 'd': options.seconds = atof(optarg); break;
      case 'v': options.version = atoi(optarg); break;
      case 'l': options.limit = atoi(optarg); break;
      case 'P': add_process(&processes, atoi(optarg)); break;
      default: exit(64);
    }
  }
  if (options.port <= 0 || options.size == 0 || options.size > block_size || options.batch < 1 || options.connections < 1)
    fail("needs --port, --size from 1 to 65536, --batch and --connections from 1");
  if (options.mode == mode_up && block_size % options.size != 0) fail("--size must divide 65536 to go up");
}

int main(int argc, char **argv) {
  read_options(argc, argv);
  if (options.mode == mode_reconnect) {
    /* Blocked from the beginning, so that it is waited for and does not end the process. */
    sigset_t told;
    sigemptyset(&told);
    sigaddset(&told, SIGUSR1);
    sigprocmask(SIG_BLOCK, &told, NULL);
  }
  bound_process(options.limit);
  loop = epoll_create1(0);
  busy_count = options.connections + (options.mode == mode_fanout ? 1 : 0);
  idle_count = options.idle > 0 ? options.idle + idle_beforehand : 0;
  raise_file_limit(busy_count + idle_count + 32);
  connection_setup(loop);
  exchange = make_exchange();
  busy = calloc((size_t)busy_count, sizeof *busy);
  idle = calloc((size_t)idle_count + 1, sizeof *idle);

  if (options.idle > 0) {
    open_all(idle, idle_beforehand, role_idle);
    run_for(0.5);
    sample(&processes, processes.before_idle);
    open_all(idle + idle_beforehand, options.idle, role_idle);
    run_for(1);
    sample(&processes, processes.after_idle);
  }
  open_all(busy, options.connections, role_busy);
  if (options.mode == mode_fanout) open_all(busy + options.connections, 1, role_publisher);
  if (options.mode == mode_reconnect) measure_reconnect();
  measure();
  /* Everything is closed by the end of the process. */
  fflush(stdout);
  _exit(0);
}
