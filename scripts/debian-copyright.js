// Prints the copyright file of the Debian package: the license of mqway, and the licenses of the modules within: node debian-copyright.js DIRECTORY
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'

const [directory = '.'] = process.argv.slice(2)
const license = readFileSync(join(directory, 'LICENSE'), 'utf8')
const indented = license
  .trim()
  .split('\n')
  .map(line => ` ${line.trim() || '.'}`)
  .join('\n')
process.stdout.write(`Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: mqway

Files: *
Copyright: 2026 the mqway authors
License: MIT
`)
const modules = readdirSync(join(directory, 'node_modules'), { recursive: true, encoding: 'utf8' })
  .filter(path => /(^|\/)(@[^/]+\/)?[^/@]+\/package\.json$/.test(path))
  .map(path => join('node_modules', path))
  .sort()
for (const path of modules) {
  const { name, version, license: own, author } = JSON.parse(readFileSync(join(directory, path), 'utf8'))
  // Some have further package.json files, which say how Node reads a directory.
  if (name === undefined || version === undefined) continue
  const texts = readdirSync(join(directory, dirname(path))).filter(file => /^(licen[cs]e|copying)/i.test(file))
  const where = texts.length > 0 && existsSync(join(directory, dirname(path), texts[0]))
  const holder = typeof author === 'string' ? author : (author?.name ?? `the authors of ${name}`)
  const text = where ? `/usr/lib/mqway/${dirname(path)}/${texts[0]}` : `https://www.npmjs.com/package/${name}`
  process.stdout.write(`
Files: usr/lib/mqway/${dirname(path)}/*
Copyright: ${holder.replaceAll(/\s+/g, ' ')}
License: ${typeof own === 'string' ? own.replaceAll(/[()]/g, '') : 'other'}
Comment: ${name} ${version}; its license is in ${text}
`)
}
process.stdout.write(`
License: MIT
${indented}
`)
