import { createRequire } from 'node:module'
import { dirname } from 'node:path'
import { expect, it } from 'vitest'

const require = createRequire(import.meta.url)

/** Loads the binary that the package `name` ships, as the package itself does, but without its substitute in JavaScript. */
function loadBinary(name: string): unknown {
  const directory = dirname(require.resolve(`${name}/package.json`))
  const load: (directory: string) => unknown = createRequire(`${directory}/`)('node-gyp-build')
  return load(directory)
}

it.each(['bcrypt', 'bufferutil', 'classic-level'])(
  'has a binary of %s for this version of Node.js without a compiler and without install scripts',
  name => {
    expect(loadBinary(name)).toBeTypeOf('object')
  },
)
