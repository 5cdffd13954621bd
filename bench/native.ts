import { execFileSync } from 'node:child_process'
import { join } from 'node:path'
import { build, nativeSources } from './places.js'

export const loadProgram = join(build, 'load')
export const upstreamProgram = join(build, 'upstream')

/**
 * Compiles the load generator and the upstream.
 *
 * They are in C because one in JavaScript is slower than lighttpd, and would have measured itself.
 */
export function compileNative(): void {
  const sources = ['load', 'connection', 'frames', 'exchange', 'report'].map(name => join(nativeSources, `${name}.c`))
  const flags = ['-O2', '-std=gnu11', '-Wall', '-Wextra']
  try {
    execFileSync('gcc', [...flags, '-o', loadProgram, ...sources, '-lssl', '-lcrypto'], { stdio: 'pipe' })
    execFileSync('gcc', [...flags, '-o', upstreamProgram, join(nativeSources, 'upstream.c')], { stdio: 'pipe' })
  } catch (error) {
    throw new Error('cannot compile bench/native: it needs gcc and OpenSSL’s headers (Debian: gcc libssl-dev)', {
      cause: error,
    })
  }
}
