/* Latencies, the processes' accounts, and the one line of JSON that comes out. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "process.h"
#include "report.h"

static float *latencies;
static size_t count, capacity;

void record_latency(double seconds) {
  if (count == capacity) {
    capacity = capacity ? capacity * 2 : 1 << 16;
    latencies = realloc(latencies, capacity * sizeof *latencies);
  }
  latencies[count++] = (float)seconds;
}

static int ascending(const void *a, const void *b) {
  float x = *(const float *)a, y = *(const float *)b;
  return x < y ? -1 : x > y;
}

static double percentile(double share) {
  if (count == 0) return 0;
  size_t at = (size_t)(share * (double)count);
  return 1e6 * (double)latencies[at < count ? at : count - 1];
}

/* proc(5): utime and stime are fields 14 and 15 of stat; the name before them may contain anything. */
static struct usage usage_of(int pid) {
  struct usage usage = {0};
  char path[64], text[4096];
  snprintf(path, sizeof path, "/proc/%d/stat", pid);
  FILE *file = fopen(path, "r");
  if (!file) fail("process %d of the system under test is gone", pid);
  size_t length = fread(text, 1, sizeof text - 1, file);
  fclose(file);
  text[length] = 0;
  unsigned long user = 0, system = 0;
  char *after_name = strrchr(text, ')');
  if (!after_name ||
      sscanf(after_name, ") %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user, &system) != 2)
    fail("cannot read %s", path);
  double tick = (double)sysconf(_SC_CLK_TCK);
  usage.user = (double)user / tick;
  usage.system = (double)system / tick;
  snprintf(path, sizeof path, "/proc/%d/status", pid);
  file = fopen(path, "r");
  while (file && fgets(text, sizeof text, file))
    if (sscanf(text, "VmRSS: %ld kB", &usage.rss) == 1) usage.rss *= 1024;
  if (file) fclose(file);
  return usage;
}

void add_process(struct processes *processes, int pid) {
  if (processes->count == most_processes) fail("at most %d processes", most_processes);
  processes->pids[processes->count++] = pid;
}

void sample(const struct processes *processes, struct usage *usages) {
  for (int i = 0; i < processes->count; i++) usages[i] = usage_of(processes->pids[i]);
}

void sample_all(struct processes *processes) {
  processes->own_before = usage_of(getpid());
  sample(processes, processes->before);
}

void report(const struct work *work, const struct processes *processes) {
  qsort(latencies, count, sizeof *latencies, ascending);
  printf("{\"seconds\":%.6f,\"messages\":%ld,\"bytes\":%lld,\"rounds\":%zu,", work->seconds, work->messages, work->bytes,
         count);
  printf("\"p50\":%.1f,\"p99\":%.1f,\"longest\":%.1f,", percentile(0.5), percentile(0.99), percentile(1));
  printf("\"leastServed\":%.4f,\"resumed\":%.4f,\"cipher\":\"%s\",", work->share, work->resumed, work->cipher);
  /* The generator's own processor time: well below 1 per second means that it was not the bottleneck. */
  struct usage own = usage_of(getpid());
  double own_seconds = own.user + own.system - processes->own_before.user - processes->own_before.system;
  printf("\"generator\":%.4f,\"processes\":[", own_seconds / work->seconds);
  for (int i = 0; i < processes->count; i++) {
    const struct usage *before = &processes->before[i];
    struct usage after = usage_of(processes->pids[i]);
    printf("%s{\"pid\":%d,\"user\":%.2f,\"system\":%.2f,\"rss\":%ld,\"idleBytes\":%ld}", i > 0 ? "," : "",
           processes->pids[i], after.user - before->user, after.system - before->system, after.rss,
           processes->after_idle[i].rss - processes->before_idle[i].rss);
  }
  printf("]}\n");
}
