/** Just below the largest block that glibc counts, in bytes. */
const largestCounted = 32 * 1024 ** 2 - 64 * 1024

/**
 * Makes glibc keep the memory that it has, instead of giving it back and taking it again all the time.
 *
 * Node allocates 64 KiB for each read. glibc returns memory to the kernel as soon as 128 KiB at the top of its heap are
 * free, and each page that it takes again costs a fault: under load, that was 40 % of all processor time (measured with
 * `npm run bench -- --only 1k,64k`: 2300 → 1350 and 2000 → 1130 µs per MB). It raises that limit by itself to twice the
 * size of the largest mapped block that was freed so far (mallopt(3), "dynamic mmap threshold"); this is such a block,
 * which is garbage at once. Nobody writes to it, so that it takes no memory. Elsewhere than on glibc it does nothing.
 */
export function raiseTrimThreshold(): void {
  Buffer.allocUnsafeSlow(largestCounted)
}
