/* One connection: TCP, TLS, the WebSocket handshake by hand (RFC 6455 §4.1), then bytes both ways. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "load.h"

/* The example of RFC 6455 §1.3: a key, and the only right answer to it. */
#define handshake_key "dGhlIHNhbXBsZSBub25jZQ=="
#define handshake_accept "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
#define longest_response 4096

static int loop;
static SSL_CTX *tls;
static char cipher[64];
static unsigned char input[1 << 18];

/* TLS 1.3 gives several tickets, after the handshake: the newest is kept. Returning 1 keeps the reference. */
static int keep_session(SSL *ssl, SSL_SESSION *session) {
  struct connection *c = SSL_get_app_data(ssl);
  if (c->session) SSL_SESSION_free(c->session);
  c->session = session;
  return 1;
}

void connection_setup(int epoll) {
  loop = epoll;
  if (!options.tls) return;
  tls = SSL_CTX_new(TLS_client_method());
  /* The certificate was made a moment ago, for this run. */
  SSL_CTX_set_verify(tls, SSL_VERIFY_NONE, NULL);
  SSL_CTX_set_mode(tls, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER | SSL_MODE_RELEASE_BUFFERS);
  SSL_CTX_set_session_cache_mode(tls, options.resume ? SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL : SSL_SESS_CACHE_OFF);
  if (options.resume) SSL_CTX_sess_set_new_cb(tls, keep_session);
  /* Several records per read: the generator's own CPU is what it saves. */
  SSL_CTX_set_read_ahead(tls, 1);
  SSL_CTX_set_default_read_buffer_len(tls, 1 << 17);
}

const char *connection_cipher(void) { return cipher; }

static void watch(struct connection *c, int operation) {
  uint32_t events = c->waits_for_room ? EPOLLIN | EPOLLOUT : EPOLLIN;
  struct epoll_event event = {.events = events, .data.ptr = c};
  epoll_ctl(loop, operation, c->fd, &event);
}

static void wait_for_room(struct connection *c, bool wait) {
  if (c->waits_for_room == wait) return;
  c->waits_for_room = wait;
  watch(c, EPOLL_CTL_MOD);
}

void connection_open(struct connection *c) {
  enum role role = c->role;
  SSL_SESSION *session = c->session;
  memset(c, 0, sizeof *c);
  c->role = role;
  c->session = session;
  c->state = state_connecting;
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

void connection_close(struct connection *c) {
  if (c->state == state_closed) return;
  c->state = state_closed;
  if (c->ssl) {
    /* Otherwise OpenSSL takes the session for broken, and does not resume it. */
    SSL_set_shutdown(c->ssl, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
    SSL_free(c->ssl);
  }
  c->ssl = NULL;
  close(c->fd);
  free(c->owned);
  free(c->response);
  c->owned = NULL;
  c->response = NULL;
}

/* Returns how many bytes went, 0 for none now, -1 when the connection is broken. */
static ssize_t write_some(struct connection *c) {
  if (!c->ssl) {
    ssize_t sent = send(c->fd, c->out, c->out_left, MSG_NOSIGNAL);
    return sent >= 0 ? sent : errno == EAGAIN ? 0 : -1;
  }
  int sent = SSL_write(c->ssl, c->out, c->out_left > 1 << 30 ? 1 << 30 : (int)c->out_left);
  if (sent > 0) return sent;
  int error = SSL_get_error(c->ssl, sent);
  return error == SSL_ERROR_WANT_WRITE || error == SSL_ERROR_WANT_READ ? 0 : -1;
}

static void flush(struct connection *c) {
  while (c->out_left > 0) {
    ssize_t sent = write_some(c);
    if (sent < 0) {
      if (c->state == state_leaving) return on_end(c);
      fail("the connection broke while writing");
    }
    if (sent == 0) return wait_for_room(c, true);
    c->out += sent;
    c->out_left -= (size_t)sent;
  }
  /* One way up: the next block when there is room again, so that other connections get their turn. */
  if (c->state == state_ready && options.mode == mode_up) {
    on_sent(c);
    return wait_for_room(c, true);
  }
  free(c->owned);
  c->owned = NULL;
  wait_for_room(c, false);
}

void connection_send(struct connection *c, const unsigned char *bytes, size_t length) {
  if (c->out_left > 0) fail("a round was begun before the last one was sent");
  c->out = bytes;
  c->out_left = length;
  flush(c);
}

static void request_upgrade(struct connection *c) {
  if (options.framing != framing_websocket) return on_upgraded(c);
  c->state = state_upgrading;
  char *request = NULL;
  int length = asprintf(&request,
                        "GET /mqtt HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                        "Sec-WebSocket-Key: " handshake_key
                        "\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n",
                        options.port);
  c->owned = (unsigned char *)request;
  connection_send(c, c->owned, (size_t)length);
}

static void receive(struct connection *c, const unsigned char *bytes, size_t length) {
  if (options.framing == framing_none) receive_payload(c, bytes, length);
  else receive_frames(c, bytes, length);
}

static void receive_response(struct connection *c, const unsigned char *bytes, size_t length) {
  if (!c->response) c->response = calloc(1, longest_response + 1);
  /* Only a part of what came may be the answer: an upstream that speaks first does so at once. */
  size_t before = c->response_length, copied = longest_response - before;
  if (copied > length) copied = length;
  memcpy(c->response + before, bytes, copied);
  c->response_length += copied;
  c->response[c->response_length] = 0;
  char *end = strstr(c->response, "\r\n\r\n");
  if (!end && c->response_length == longest_response) fail("the answer to the upgrade is too long");
  if (!end) return;
  if (strncmp(c->response, "HTTP/1.1 101", 12) != 0) fail("no upgrade: %.60s", c->response);
  if (!strstr(c->response, handshake_accept)) fail("the upgrade's Sec-WebSocket-Accept is wrong");
  size_t taken = (size_t)(end + 4 - c->response) - before;
  free(c->response);
  c->response = NULL;
  on_upgraded(c);
  if (length > taken) receive(c, bytes + taken, length - taken);
}

/* A copy, as OpenSSL's client resumes a session of TLS 1.3 once, and servers give no new ticket to whoever resumes. */
static void resume_session(struct connection *c) {
  SSL_SESSION *copy = SSL_SESSION_dup(c->session);
  SSL_set_session(c->ssl, copy);
  SSL_SESSION_free(copy);
}

static void secure(struct connection *c) {
  c->state = state_securing;
  if (!c->ssl) {
    c->ssl = SSL_new(tls);
    SSL_set_fd(c->ssl, c->fd);
    SSL_set_app_data(c->ssl, c);
    if (c->session) resume_session(c);
  }
  int done = SSL_connect(c->ssl);
  if (done == 1) {
    wait_for_room(c, false);
    c->resumed = SSL_session_reused(c->ssl);
    snprintf(cipher, sizeof cipher, "%s %s", SSL_get_version(c->ssl), SSL_get_cipher(c->ssl));
    return request_upgrade(c);
  }
  int error = SSL_get_error(c->ssl, done);
  if (error == SSL_ERROR_WANT_WRITE) return wait_for_room(c, true);
  if (error == SSL_ERROR_WANT_READ) return wait_for_room(c, false);
  fail("TLS: %s", ERR_reason_error_string(ERR_get_error()));
}

/* Returns how many bytes came, 0 for none now, -1 for the end. */
static ssize_t read_some(struct connection *c) {
  if (!c->ssl) {
    ssize_t length = recv(c->fd, input, sizeof input, 0);
    return length > 0 ? length : length < 0 && errno == EAGAIN ? 0 : -1;
  }
  int length = SSL_read(c->ssl, input, sizeof input);
  if (length > 0) return length;
  int error = SSL_get_error(c->ssl, length);
  ERR_clear_error();
  return error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE ? 0 : -1;
}

static void on_input(struct connection *c) {
  do {
    ssize_t length = read_some(c);
    if (length < 0) return on_end(c);
    if (length == 0) return;
    if (c->state == state_upgrading) receive_response(c, input, (size_t)length);
    else receive(c, input, (size_t)length);
    if (c->state == state_ready) on_received(c);
  } while (c->state != state_closed && c->ssl && SSL_has_pending(c->ssl));
}

void connection_event(struct connection *c, uint32_t events) {
  if (c->state == state_connecting) {
    int error = 0;
    socklen_t length = sizeof error;
    getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &length);
    if (error) fail("connect: %s", strerror(error));
    wait_for_room(c, false);
    if (options.tls) secure(c);
    else request_upgrade(c);
    return;
  }
  if (c->state == state_securing) return secure(c);
  if (events & (EPOLLIN | EPOLLHUP | EPOLLERR)) on_input(c);
  if (c->state != state_closed && (events & EPOLLOUT)) flush(c);
}
