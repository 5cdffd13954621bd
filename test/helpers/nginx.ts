import { readFileSync } from 'node:fs'
import { chmod, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir, userInfo } from 'node:os'
import { join } from 'node:path'
import { onTestFinished } from 'vitest'
import { parse } from 'yaml'
import type { ConfigInput } from '../../src/config/schema.js'
import { freePorts } from './free-ports.js'
import { run } from './processes.js'
import { eventually } from './wait.js'

const operations = readFileSync(new URL('../../docs/operations.md', import.meta.url), 'utf8')
const [, nginxLines = '', yaml = ''] =
  /\n## Behind nginx\n[\s\S]*?```nginx\n([\s\S]*?)```[\s\S]*?```yaml\n([\s\S]*?)```/.exec(operations) ?? []

/** The blocks of “Behind nginx” in docs/operations.md, for either side. */
export const behindNginx: { readonly nginx: string; readonly mqway: ConfigInput } = {
  nginx: nginxLines,
  mqway: parse(yaml),
}

/**
 * Starts Debian's nginx on a free port of loopback, with its own directory; both are removed after the test.
 *
 * @param lines the block of docs/operations.md, or a changed one: a `location` and a `map`
 * @returns its URL
 */
export async function startNginx(lines: string): Promise<string> {
  const [port = 0] = await freePorts(1)
  const directory = await mkdtemp(join(tmpdir(), 'nginx-'))
  await chmod(directory, 0o755)
  const file = join(directory, 'nginx.conf')
  const [location, map] = lines.split('# and beside server { … }:')
  const temporary = ['client_body', 'proxy', 'fastcgi', 'scgi', 'uwsgi'].map(
    kind => `${kind}_temp_path ${join(directory, kind)};`,
  )
  // Only root may run workers as another user: here `nobody`, where Debian's nginx has `www-data`.
  const user = userInfo().uid === 0 ? 'user nobody nogroup;' : ''
  await writeFile(
    file,
    `daemon off; ${user} pid ${join(directory, 'pid')}; error_log stderr crit; worker_processes 1; events {}
http { access_log off; ${temporary.join(' ')}
server { listen 127.0.0.1:${port};
${location}
}
${map}
}`,
  )
  const nginx = run('/usr/sbin/nginx', ['-e', 'stderr', '-c', file])
  onTestFinished(async () => {
    await nginx.stop()
    await rm(directory, { recursive: true })
  })
  const url = `http://127.0.0.1:${port}`
  await eventually(async () => {
    if (nginx.child.exitCode !== null) throw new Error(`nginx ended: ${nginx.errors()}`)
    return fetch(url).then(
      () => true,
      () => false,
    )
  })
  return url
}
