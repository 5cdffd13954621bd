import { execFileSync } from 'node:child_process'
import { join } from 'node:path'
import { build, nativeSources } from './places.js'

export const loadProgram = join(build, 'load')
export const pushProgram = join(build, 'push')
export const upstreamProgram = join(build, 'upstream')

const parts: Readonly<Record<string, readonly string[]>> = {
  [loadProgram]: ['load', 'connection', 'frames', 'exchange', 'report', 'process'],
  [pushProgram]: ['push', 'response', 'messages', 'report', 'process'],
  [upstreamProgram]: ['upstream'],
}

/**
 * Compiles the load generators and the upstream.
 *
 * They are in C because one in JavaScript is slower than lighttpd, and would have measured itself.
 */
export function compileNative(): void {
  const flags = ['-O2', '-std=gnu11', '-Wall', '-Wextra']
  try {
    for (const [program, names] of Object.entries(parts)) {
      const sources = names.map(name => join(nativeSources, `${name}.c`))
      execFileSync('gcc', [...flags, '-o', program, ...sources, '-lssl', '-lcrypto'], { stdio: 'pipe' })
    }
  } catch (error) {
    throw new Error('cannot compile bench/native: it needs gcc and OpenSSL’s headers (Debian: gcc libssl-dev)', {
      cause: error,
    })
  }
}
