/* The load generator's parts, and what they share. One thread, one epoll loop, frames built before the clock starts. */
#pragma once
#include <openssl/ssl.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "process.h"
#include "report.h"

/* How bytes travel: as a WebSocket client, as a server's unmasked frames without a handshake (through a plain TCP
 * relay, so that the receiving side does the same work), or bare. */
enum framing { framing_websocket, framing_unmasked, framing_none };

enum mode {
  mode_echo,    /* what is sent has to come back; a round is a batch of messages */
  mode_down,    /* the upstream sends, as fast as it is read */
  mode_up,      /* bytes are sent as fast as they are taken; the upstream acknowledges each 64 KiB */
  mode_connect, /* open, CONNECT, CONNACK, close, again */
  mode_fanout,  /* one publisher; a round is over when every subscriber has it */
  mode_qos1,    /* each connection publishes at QoS 1 and waits for PUBACK */
  mode_reconnect /* all connect, CONNECT, CONNACK; close; and once told by SIGUSR1, all again at once */
};

struct options {
  int port;
  bool tls;
  bool resume; /* each connection resumes the TLS session of the one before it */
  enum framing framing;
  enum mode mode;
  int connections;
  size_t size;   /* payload bytes of a message */
  int batch;     /* messages of a round */
  int idle;      /* connections that are opened before, and do nothing */
  double rate;   /* rounds per second over all connections; 0: as fast as they come back */
  double warmup; /* seconds */
  double seconds;
  int version; /* of MQTT: 4 is 3.1.1 */
  int limit; /* seconds after which the whole process ends, whatever happens */
};

/* What is sent in a round, and what has to come back. */
struct exchange {
  unsigned char *send;
  size_t send_length;
  unsigned char *expect;
  size_t expect_length;
  long messages; /* of one connection's completed round */
  int answers;   /* packets that answer a greeting of MQTT 5 */
};

enum state { state_closed, state_connecting, state_securing, state_upgrading, state_greeting, state_ready, state_leaving };
enum role { role_busy, role_idle, role_publisher };

struct connection {
  int fd;
  SSL *ssl;
  SSL_SESSION *session; /* the newest one, with its ticket; stays when the connection is closed */
  bool resumed;
  enum state state;
  enum role role;
  bool waits_for_room;
  const unsigned char *out; /* what is left to write */
  size_t out_left;
  unsigned char *owned; /* the request or greeting that `out` points into, freed once sent */
  char *response;       /* the answer to the upgrade request or to a greeting of MQTT 5, as far as it is there */
  size_t response_length;
  unsigned char header[10]; /* of the frame that is being received */
  int header_length;
  int opcode;
  uint64_t frame_left;
  const unsigned char *expect;
  size_t expect_length, expect_at;
  int answers_left; /* of a greeting of MQTT 5 */
  bool in_round;
  double round_since; /* when it was started, or should have been (see `rate`) */
  double next_due;
  long owed; /* rounds that are due and not yet started */
  long rounds; /* since the measurement began */
  long sent, laps; /* messages, and whole batches that came back, since the connection began */
  double opened_at;
};

extern struct options options;

/* connection.c */
void connection_setup(int epoll);
void connection_open(struct connection *c);
void connection_event(struct connection *c, uint32_t events);
void connection_send(struct connection *c, const unsigned char *bytes, size_t length);
void connection_close(struct connection *c);
const char *connection_cipher(void);

/* load.c: what the connection tells */
void on_puback(const unsigned char *packet, size_t length);
void on_upgraded(struct connection *c);
void on_expected(struct connection *c);
void on_received(struct connection *c);
void on_sent(struct connection *c);
void on_end(struct connection *c);

/* frames.c */
size_t frame_append(unsigned char *to, const unsigned char *payload, size_t length, int opcode);
void receive_payload(struct connection *c, const unsigned char *bytes, size_t length);
void receive_frames(struct connection *c, const unsigned char *bytes, size_t length);

/* exchange.c */
struct exchange make_exchange(void);
struct exchange make_greeting(long number, bool subscribe, bool publish);
size_t receive_greeting(struct connection *c, const unsigned char *bytes, size_t length);
#define block_size 65536
void fill_block(unsigned char *block);
