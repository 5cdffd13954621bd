/**
 * Builds the browser client: `public/mqway.js`, one minified module, and `public/mqway.d.ts` beside it.
 */

import { execFile } from 'node:child_process'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { rolldown } from 'rolldown'

const root = fileURLToPath(new URL('..', import.meta.url))
const source = join(root, 'src/client')

/** @returns {Promise<string>} */
export async function clientCode() {
  const bundle = await rolldown({ input: join(source, 'mqway.ts'), tsconfig: join(source, 'tsconfig.json') })
  try {
    const { output } = await bundle.generate({ format: 'esm', minify: true, comments: false })
    return output[0].code
  } finally {
    await bundle.close()
  }
}

/** @returns {Promise<string>} the declarations of what the module exports, in one file */
export async function clientTypes() {
  const directory = await mkdtemp(join(tmpdir(), 'mqway-client-'))
  try {
    const tsc = join(dirname(createRequire(import.meta.url).resolve('typescript/package.json')), 'bin/tsc')
    const emit = ['--noEmit', 'false', '--declaration', '--emitDeclarationOnly', '--outDir', directory]
    await promisify(execFile)(process.execPath, [tsc, '-p', source, ...emit])
    const read = (/** @type {string} */ name) => readFile(join(directory, name), 'utf8')
    const entry = await read('mqway.d.ts')
    return `${await read('api.d.ts')}\n${entry.replace(/^(import|export) .* from '.*';\n/gm, '')}`
  } finally {
    await rm(directory, { recursive: true })
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const [code, types] = await Promise.all([clientCode(), clientTypes()])
  await writeFile(join(root, 'public/mqway.js'), code)
  await writeFile(join(root, 'public/mqway.d.ts'), types)
}
