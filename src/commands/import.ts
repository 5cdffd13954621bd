import { readdirSync, readFileSync } from 'node:fs'
import { basename, dirname, isAbsolute, join } from 'node:path'
import { parseArgs } from 'node:util'
import { type IncludedFile, importLighttpd, LighttpdError } from '../config/lighttpd.js'

/**
 * `mqway import LIGHTTPD.CONF`: prints the configuration file that does the same; what it cannot carry over goes to
 * standard error, one line each.
 *
 * @returns exit code 0, or 2 when the file cannot be read or parsed
 */
export async function importLighttpdCommand(argv: readonly string[], _env: NodeJS.ProcessEnv): Promise<number> {
  const { values, positionals } = parseArgs({ args: [...argv], strict: false, allowPositionals: true })
  const [fileName] = positionals
  if (fileName === undefined || positionals.length > 1 || Object.keys(values).length > 0) {
    process.stderr.write('mqway import: needs one lighttpd.conf: mqway import LIGHTTPD.CONF\n')
    return 2
  }
  try {
    // Relative to the file that was named, as in lighttpd; and shown as short as it was named.
    const place = (path: string) => (isAbsolute(path) ? path : join(dirname(fileName), path))
    const readInclude = (pattern: string) => readFiles(place(pattern))
    const { yaml, warnings } = importLighttpd(readFileSync(fileName, 'utf8'), { fileName, readInclude })
    for (const { file, line, message } of warnings) process.stderr.write(`${file}:${line}: ${message}\n`)
    process.stdout.write(yaml)
    return 0
  } catch (error) {
    if (!(error instanceof LighttpdError) && !isSystemError(error)) throw error
    process.stderr.write(`${error.message}\n`)
    return 2
  }
}

/** The files of an `include`: one, or those that a pattern in the last part of the path names, by name, as in lighttpd. */
function readFiles(pattern: string): IncludedFile[] {
  const directory = dirname(pattern)
  const name = basename(pattern)
  const names = /[*?]/.test(name)
    ? filesIn(directory)
        .filter(file => globRegex(name).test(file))
        .sort()
    : [name]
  return names.flatMap(file => {
    const fileName = join(directory, file)
    try {
      return [{ fileName, text: readFileSync(fileName, 'utf8') }]
    } catch (error) {
      // A file that is missing is a warning of the importer, with the line of its include.
      if (isSystemError(error) && error.code === 'ENOENT') return []
      throw error
    }
  })
}

function filesIn(directory: string): string[] {
  try {
    return readdirSync(directory)
  } catch (error) {
    if (isSystemError(error) && error.code === 'ENOENT') return []
    throw error
  }
}

function globRegex(pattern: string): RegExp {
  const source = pattern
    .replaceAll(/[$()+.[\\\]^{|}]/g, '\\$&')
    .replaceAll('*', '.*')
    .replaceAll('?', '.')
  return new RegExp(`^${source}$`, 'u')
}

function isSystemError(error: unknown): error is NodeJS.ErrnoException {
  return error instanceof Error && 'syscall' in error
}
