/* What both load generators need of a process. */
#define _GNU_SOURCE
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "process.h"

double now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

_Noreturn void fail(const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  fprintf(stderr, "load: ");
  vfprintf(stderr, format, arguments);
  fprintf(stderr, "\n");
  exit(1);
}

static void on_alarm(int signal) {
  (void)signal;
  static const char text[] = "load: did not come to its end in time\n";
  if (write(STDERR_FILENO, text, sizeof text - 1) < 0) _exit(2);
  _exit(1);
}

void bound_process(int limit) {
  prctl(PR_SET_PDEATHSIG, SIGTERM);
  signal(SIGPIPE, SIG_IGN);
  signal(SIGALRM, on_alarm);
  alarm((unsigned)limit);
}

void raise_file_limit(int needed) {
  struct rlimit limit;
  getrlimit(RLIMIT_NOFILE, &limit);
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
  if (limit.rlim_cur < (rlim_t)needed)
    fail("needs %d open files and may have %lu: raise `ulimit -Hn`", needed, (unsigned long)limit.rlim_cur);
}

int choice(const char *name, const char *value, const char *const *names) {
  for (int i = 0; names[i]; i++)
    if (strcmp(names[i], value) == 0) return i;
  fprintf(stderr, "load: --%s cannot be %s\n", name, value);
  exit(64);
}
