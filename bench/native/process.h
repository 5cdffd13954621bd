/* What both load generators need of a process: a clock, a way to end, and bounds. */
#pragma once

/* Seconds of a clock that only goes forward. */
double now(void);

/* Ends the process with a sentence on standard error and 1. */
_Noreturn void fail(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Ends with whoever started it, after `limit` seconds at the latest; writing to what is closed is an error and no signal. */
void bound_process(int limit);

/* Fails where `needed` files cannot be open at once. */
void raise_file_limit(int needed);

/* The index of `value` in `names`, which end with NULL; fails with the option's name. */
int choice(const char *name, const char *value, const char *const *names);
