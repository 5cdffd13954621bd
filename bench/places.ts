import { fileURLToPath } from 'node:url'

/** This file runs as `bench/build/places.js`. */
const here = (path: string): string => fileURLToPath(new URL(path, import.meta.url))

/** BENCH_MQWAY: another build's `dist/cli.js`, to compare with. */
export const mqwayProgram = process.env['BENCH_MQWAY'] ?? here('../../dist/cli.js')
/** BENCH_NODE: another Node.js to run mqway and the bridges on. */
export const node = process.env['BENCH_NODE'] ?? process.execPath
export const nativeSources = here('../native')
export const build = here('.')
export const results = here('../results')
