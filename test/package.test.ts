import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { posix } from 'node:path'
import { describe, expect, it } from 'vitest'

const manifest: Record<string, unknown> = JSON.parse(readFileSync('package.json', 'utf8'))

/** Paths of the files that `npm pack` takes. */
function packedFiles(): Set<string> {
  const said = JSON.parse(
    execFileSync('npm', ['pack', '--dry-run', '--json', '--ignore-scripts'], { encoding: 'utf8', stdio: 'pipe' }),
  )
  // npm 11 answers with an array, npm 12 with an object.
  const packed = Object.values<{ files: { path: string }[] }>(said)
  return new Set(packed.flatMap(({ files }) => files.map(file => file.path)))
}

describe('the package', () => {
  it('has everything that its documents link to', () => {
    const files = packedFiles()
    const isThere = (path: string): boolean =>
      files.has(path) || [...files].some(file => file.startsWith(`${path.replace(/\/$/, '')}/`))
    const dead = [...files]
      .filter(file => file.endsWith('.md'))
      .flatMap(file => {
        const links = readFileSync(file, 'utf8').matchAll(/\]\((?![a-z]+:|#)([^)#\s]+)[^)]*\)/g)
        return [...links].map(([, link = '']) => posix.join(posix.dirname(file), link)).filter(path => !isThere(path))
      })
    expect(dead).toEqual([])
    expect([...files].filter(file => file.startsWith('docs/')).length).toBeGreaterThan(10)
  })

  it('overrides no version: those who install it would not have that', () => {
    expect(manifest).not.toHaveProperty('overrides')
  })
})
