import { readFileSync } from 'node:fs'
import { dirname, isAbsolute, join, relative } from 'node:path'
import { parseArgs } from 'node:util'
import { escapePath, globSync } from 'tinyglobby'
import { type IncludedFile, importLighttpd, LighttpdError } from '../import/lighttpd/lighttpd.js'

/** Exit code of an import that left something out, or did something else than lighttpd, for a person to look at. */
const needsDecision = 3

/**
 * `mqway import LIGHTTPD.CONF`: prints the configuration file that does the same; every difference goes to standard error, one line each.
 *
 * @returns exit code 0; 3 where a person has to look at one of the lines; 2 when a file cannot be read or parsed, or has no tunnel
 */
export async function importLighttpdCommand(argv: readonly string[], env: NodeJS.ProcessEnv): Promise<number> {
  const { values, positionals } = parseArgs({ args: [...argv], strict: false, allowPositionals: true })
  const [fileName] = positionals
  if (fileName === undefined || positionals.length > 1 || Object.keys(values).length > 0) {
    process.stderr.write('mqway import: needs one lighttpd.conf: mqway import LIGHTTPD.CONF\n')
    return 2
  }
  try {
    // Relative to the file that was named, as in lighttpd; and shown as short as it was named.
    const directory = dirname(fileName)
    const readInclude = (pattern: string) => readFiles(pattern, directory)
    const text = readFileSync(fileName, 'utf8')
    const { yaml, findings } = importLighttpd(text, { fileName, readInclude, env, cwd: process.cwd() })
    for (const { file, line, message } of findings) process.stderr.write(`${file}:${line}: ${message}\n`)
    process.stdout.write(yaml)
    return findings.some(finding => finding.needsDecision) ? needsDecision : 0
  } catch (error) {
    if (!(error instanceof LighttpdError) && !isSystemError(error)) throw error
    process.stderr.write(
      isSystemError(error) ? `mqway import: ${explainFileError(error, fileName)}\n` : `${error.message}\n`,
    )
    return 2
  }
}

/**
 * The files of an `include`: one, or those that a pattern names, by name. As in lighttpd (glob(3) with braces), `*` stands for no dot at the
 * beginning of a name, and a directory is an error.
 */
function readFiles(pattern: string, directory: string): IncludedFile[] {
  const names = /[*?[{]/.test(pattern)
    ? globSync(isAbsolute(pattern) ? pattern : join(escapePath(directory), pattern), {
        onlyFiles: false,
        expandDirectories: false,
        absolute: true,
      }).sort()
    : [isAbsolute(pattern) ? pattern : join(directory, pattern)]
  return names.flatMap(path => {
    const fileName = isAbsolute(pattern) || isAbsolute(directory) ? path : relative(process.cwd(), path) || path
    try {
      return [{ fileName, text: readFileSync(path, 'utf8') }]
    } catch (error) {
      // The importer says in which line a file is named that is missing.
      if (isSystemError(error) && error.code === 'ENOENT') return []
      throw error
    }
  })
}

const fileErrors: Readonly<Record<string, string>> = {
  ENOENT: 'there is no such file',
  ENOTDIR: 'there is no such file',
  EISDIR: 'this is a directory; name the lighttpd.conf in it',
  EACCES: 'this user may not read it',
}

/**
 * The file and the cause; the system's own words where no others are known.
 *
 * @param fileName where the error has no path, as that of a directory that is read
 */
function explainFileError({ path, code = '', message }: NodeJS.ErrnoException, fileName: string): string {
  return `${path ?? fileName}: ${fileErrors[code] ?? message}`
}

function isSystemError(error: unknown): error is NodeJS.ErrnoException {
  return error instanceof Error && 'syscall' in error
}
