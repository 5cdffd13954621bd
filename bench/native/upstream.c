/*
 * What the systems under test lead to: `upstream echo|source|sink|connack` on a free port of loopback, which it prints.
 *
 * - echo: sends back what it gets
 * - source: sends a known block of 64 KiB again and again, as fast as it is taken
 * - sink: checks that it gets that block again and again, and answers each one with a `K`
 * - connack: answers the first bytes of a connection with an MQTT CONNACK, and swallows the rest
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#define block_size 65536

enum mode { echo, source, sink, connack } mode;

struct connection {
  int fd;
  unsigned char *rest; /* what could not be sent at once; nothing is read meanwhile */
  size_t rest_at, rest_length;
  size_t block_at;
  int answered;
};

static int loop;
static unsigned char block[block_size];
static unsigned char input[4 * block_size];

/* The same as in exchange.c. */
static void fill_block(void) {
  uint32_t x = 2463534242u;
  for (size_t i = 0; i < block_size; i++) {
    x ^= x << 13, x ^= x >> 17, x ^= x << 5;
    block[i] = (unsigned char)x;
  }
}

static void watch(struct connection *c, uint32_t events) {
  struct epoll_event event = {.events = events, .data.ptr = c};
  epoll_ctl(loop, EPOLL_CTL_MOD, c->fd, &event);
}

static void drop(struct connection *c) {
  close(c->fd);
  free(c->rest);
  free(c);
}

/* 1: all sent, 0: the rest is kept, -1: broken. */
static int send_all(struct connection *c, const unsigned char *bytes, size_t length) {
  ssize_t sent = send(c->fd, bytes, length, MSG_NOSIGNAL);
  if (sent < 0 && errno != EAGAIN) return -1;
  if (sent < 0) sent = 0;
  if ((size_t)sent == length) return 1;
  c->rest_length = length - (size_t)sent;
  c->rest = malloc(c->rest_length);
  memcpy(c->rest, bytes + sent, c->rest_length);
  c->rest_at = 0;
  watch(c, EPOLLOUT);
  return 0;
}

static int take_sink(struct connection *c, size_t length) {
  unsigned char answers[sizeof input / block_size + 1];
  size_t count = 0, at = 0;
  while (at < length) {
    size_t run = length - at < block_size - c->block_at ? length - at : block_size - c->block_at;
    if (memcmp(block + c->block_at, input + at, run) != 0) {
      fprintf(stderr, "upstream: wrong bytes\n");
      return -1;
    }
    at += run;
    c->block_at = (c->block_at + run) % block_size;
    if (c->block_at == 0) answers[count++] = 'K';
  }
  return count == 0 ? 1 : send_all(c, answers, count);
}

static int on_input(struct connection *c) {
  ssize_t length = recv(c->fd, input, sizeof input, 0);
  if (length < 0) return errno == EAGAIN ? 1 : -1;
  if (length == 0) return -1;
  switch (mode) {
    case echo: return send_all(c, input, (size_t)length);
    case sink: return take_sink(c, (size_t)length);
    case source: return 1;
    case connack:
      if (c->answered) return 1;
      c->answered = 1;
      return send_all(c, (const unsigned char *)"\x20\x02\x00\x00", 4);
  }
  return -1;
}

static int on_room(struct connection *c) {
  if (mode == source) {
    ssize_t sent = send(c->fd, block + c->block_at, block_size - c->block_at, MSG_NOSIGNAL);
    if (sent < 0) return errno == EAGAIN ? 1 : -1;
    c->block_at = (c->block_at + (size_t)sent) % block_size;
    return 1;
  }
  ssize_t sent = send(c->fd, c->rest + c->rest_at, c->rest_length - c->rest_at, MSG_NOSIGNAL);
  if (sent < 0) return errno == EAGAIN ? 1 : -1;
  c->rest_at += (size_t)sent;
  if (c->rest_at < c->rest_length) return 1;
  free(c->rest);
  c->rest = NULL;
  watch(c, EPOLLIN);
  return 1;
}

static void on_connection(int listener) {
  int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
  if (fd < 0) return;
  int one = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  struct connection *c = calloc(1, sizeof *c);
  c->fd = fd;
  struct epoll_event event = {.events = mode == source ? EPOLLIN | EPOLLOUT : EPOLLIN, .data.ptr = c};
  epoll_ctl(loop, EPOLL_CTL_ADD, fd, &event);
}

int main(int argc, char **argv) {
  const char *names[] = {"echo", "source", "sink", "connack"};
  int found = -1;
  for (int i = 0; i < 4; i++)
    if (argc > 1 && strcmp(argv[1], names[i]) == 0) found = i;
  if (found < 0) return fprintf(stderr, "upstream echo|source|sink|connack\n"), 64;
  mode = (enum mode)found;
  prctl(PR_SET_PDEATHSIG, SIGTERM);
  fill_block();
  int listener = socket(AF_INET, SOCK_STREAM, 0);
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t length = sizeof address;
  if (bind(listener, (struct sockaddr *)&address, length) < 0 || listen(listener, 4096) < 0) return perror("upstream"), 1;
  getsockname(listener, (struct sockaddr *)&address, &length);
  printf("%d\n", ntohs(address.sin_port));
  fflush(stdout);
  loop = epoll_create1(0);
  struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
  epoll_ctl(loop, EPOLL_CTL_ADD, listener, &event);
  for (;;) {
    struct epoll_event events[256];
    int count = epoll_wait(loop, events, 256, -1);
    for (int i = 0; i < count; i++) {
      struct connection *c = events[i].data.ptr;
      if (c == NULL) {
        on_connection(listener);
        continue;
      }
      int alive = 1;
      if (events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) alive = on_input(c);
      if (alive >= 0 && (events[i].events & EPOLLOUT)) alive = on_room(c);
      if (alive < 0) drop(c);
    }
  }
}
