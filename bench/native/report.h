/* Latencies, the processes' accounts, and the one line of JSON that comes out. */
#pragma once

#define most_processes 8

/* Of one process, as the operating system counts it. */
struct usage {
  double user, system; /* seconds of CPU */
  long rss;            /* bytes */
};

/* The processes of the system under test, and what they had used at three moments. */
struct processes {
  int pids[most_processes];
  int count;
  struct usage before_idle[most_processes], after_idle[most_processes];
  struct usage before[most_processes], own_before; /* when the measurement began */
};

void add_process(struct processes *processes, int pid);
void sample(const struct processes *processes, struct usage *usages);
/* The measurement begins. */
void sample_all(struct processes *processes);

void record_latency(double seconds);

struct work {
  double seconds;
  long messages;
  long long bytes;
  double share; /* how often the connection was served that was served least, against the mean */
  double resumed; /* share of the messages that came over a resumed TLS session */
  const char *cipher;
};
void report(const struct work *work, const struct processes *processes);
