import { execFileSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { expect, it } from 'vitest'
import { run } from '../helpers/processes.js'
import { describeWith } from '../helpers/requires.js'

const root = fileURLToPath(new URL('../../', import.meta.url))
/** The quick form ends itself after 58 s; compiling comes on top. */
const limit = 90_000

/** A header is no program; it is reported under its package's name, which is none either. */
const headers = existsSync('/usr/include/openssl/ssl.h') ? [] : ['libssl-dev']

describeWith(['gcc', ...headers], 'npm run bench -- --quick', () => {
  it(
    'does work in every cell, with the right bytes, through mqway and whatever peers are there',
    async () => {
      const compiler = join(root, 'node_modules/typescript/bin/tsc')
      execFileSync(process.execPath, [compiler, '-p', 'bench/tsconfig.json'], { cwd: root })
      const bench = run(process.execPath, ['bench/build/run.js', '--quick'], { cwd: root })
      let output = ''
      bench.child.stdout.on('data', chunk => {
        output += chunk
      })
      expect(await bench.exited(), bench.errors() + output).toBe(0)
      const rows = output.split('\n').filter(line => line.startsWith('| mqway'))
      expect(rows.length).toBeGreaterThanOrEqual(6)
      for (const row of rows) expect(row).not.toMatch(/failed|missing/)
    },
    limit,
  )
})
