import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { eventually } from './wait.js'

/** Starts Debian's lighttpd with a configuration, and waits until it accepts connections at `url`. Resolves to a function that ends it. */
export async function startLighttpd(config: string, directory: string, url: string): Promise<() => Promise<void>> {
  const file = join(directory, 'lighttpd.conf')
  await writeFile(file, config)
  const child = spawn('/usr/sbin/lighttpd', ['-D', '-f', file], { cwd: directory, stdio: ['ignore', 'ignore', 'pipe'] })
  let errors = ''
  child.stderr.on('data', chunk => {
    errors += chunk
  })
  let isOver = false
  const exited = once(child, 'exit').then(() => {
    isOver = true
  })
  await eventually(async () => {
    if (isOver) throw new Error(`lighttpd ended: ${errors}`)
    return fetch(url, { redirect: 'manual' }).then(
      () => true,
      () => false,
    )
  })
  return async () => {
    child.kill('SIGKILL')
    await exited
  }
}
