import { execFileSync } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { basename, join } from 'node:path'
import { describe, expect, it } from 'vitest'

const files = execFileSync('git', ['ls-files', '--cached', '--others', '--exclude-standard'], { encoding: 'utf8' })
  .split('\n')
  .filter(file => file !== '' && existsSync(file))
// Built, and not in git.
files.push('public/mqway.d.ts', 'public/mqway.js')
const known = new Set([...files, ...files.map(file => basename(file))])
const folders = new Set(files.flatMap(file => file.split('/').map((_, at, parts) => parts.slice(0, at).join('/'))))
const roots = ['src', 'test', 'public', 'docs', 'bench', 'examples', 'scripts', 'certs']

/** Whether a path is that of a file or folder, counted from the repository or from `src/`. */
const isThere = (path: string): boolean => {
  const trimmed = path.replace(/\/$/, '')
  return [trimmed, join('src', trimmed)].some(each => known.has(each) || folders.has(each))
}

/** The paths that a document names in code spans: files of code by path or name, and paths that begin with a folder of ours. */
function pathsOf(text: string): string[] {
  return [...text.matchAll(/`([\w.][\w./-]*)`/g)]
    .map(([, path = '']) => path)
    .filter(path => /\.(ts|js|html|md)$/.test(path) || (roots.includes(path.split('/')[0] ?? '') && path.includes('/')))
}

describe('every file that is named exists', () => {
  const documents = files.filter(file => /^(docs\/.*|SECURITY)\.md$/.test(file))

  it.each(documents)('in %s', file => {
    expect(pathsOf(readFileSync(file, 'utf8')).filter(path => !isThere(path))).toEqual([])
  })

  it('in comments of src/ and in biome.json', () => {
    const dead = files
      .filter(file => /^src\/.*\.ts$|^biome\.json$/.test(file))
      .flatMap(file => {
        const lines = readFileSync(file, 'utf8').split('\n')
        const text = lines.filter(line => /^\s*(\/\/|\/?\*)|"message"/.test(line)).join('\n')
        const named = text.matchAll(/(?<![\w./-])[\w-]+(?:\/[\w.-]+)*\.(?:ts|md)\b/g)
        return [...named].filter(([path]) => !isThere(path)).map(([path]) => `${file}: ${path}`)
      })
    expect(dead).toEqual([])
  })

  it('finds one that does not exist', () => {
    expect(pathsOf('`src/none.ts`, `src/cli.ts` and `none/`').filter(path => !isThere(path))).toEqual(['src/none.ts'])
  })
})

describe('docs/architecture.md', () => {
  it('has every folder of src/', () => {
    const text = readFileSync('docs/architecture.md', 'utf8')
    const tops = new Set(files.filter(file => /^src\/[^/]+\//.test(file)).map(file => file.split('/')[1] ?? ''))
    const [, drawing = ''] = /```\nsrc\/\n([\s\S]*?)```/.exec(text) ?? []
    expect([...tops].filter(folder => !new RegExp(`^ +(?:\\S+, )?${folder}/`, 'm').test(drawing))).toEqual([])
  })
})
