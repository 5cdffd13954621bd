import { accessSync, constants, existsSync } from 'node:fs'
import { delimiter, join } from 'node:path'
import { describe, it } from 'vitest'

/** Requirements that are not programs: Debian's packages of modules; those for Python belong to Debian's `/usr/bin/python3`. */
const modules: Readonly<Record<string, string>> = {
  libfaketime: '/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1',
  'lighttpd-mod-openssl': '/usr/lib/lighttpd/mod_openssl.so',
  'python3-aiosmtpd': '/usr/lib/python3/dist-packages/aiosmtpd/smtp.py',
  'python3-paho-mqtt': '/usr/lib/python3/dist-packages/paho/mqtt/client.py',
}

/**
 * A `describe` for tests that need installed programs. Without one, they are skipped, and reported with the
 * name of the missing one; with CI=true that is a failure.
 *
 * @param programs names in PATH, files, or Debian's packages of modules; `root` for tests that mount a disk or make a network
 */
export function describeWith(programs: string | readonly string[], title: string, body: () => void): void {
  const missing = [programs].flat().filter(program => !isThere(program))
  if (missing.length === 0) {
    describe(title, body)
    return
  }
  const reason = `${title}: needs ${missing.join(', ')} (see test/setup.sh)`
  if (process.env['CI'] !== 'true') {
    describe.skip(reason, body)
    return
  }
  it(reason, () => {
    throw new Error(`missing: ${missing.join(', ')}`)
  })
}

function isThere(program: string): boolean {
  if (program === 'root') return process.getuid?.() === 0
  const module = modules[program]
  if (module !== undefined) return existsSync(module)
  const directories = program.includes('/') ? [''] : [...(process.env['PATH'] ?? '').split(delimiter), '/usr/sbin']
  return directories.some(directory => {
    try {
      accessSync(join(directory, program), constants.X_OK)
      return true
    } catch {
      return false
    }
  })
}
