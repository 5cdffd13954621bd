import { readFileSync } from 'node:fs'
import { dirname, isAbsolute, join, relative } from 'node:path'
import { parseArgs } from 'node:util'
import { escapePath, globSync } from 'tinyglobby'
import { type IncludedFile, importLighttpd, LighttpdError } from '../import/lighttpd/lighttpd.js'

/** Exit code of an import with differences that a person has to look at. */
const needsDecision = 3

/**
 * `mqway import LIGHTTPD.CONF`: prints the equivalent configuration file, and the differences on standard error, one per line.
 *
 * @returns exit code 0; 3 if a person has to look at a difference; 2 if a file cannot be read or parsed, or has no tunnel
 */
export async function importLighttpdCommand(argv: readonly string[], env: NodeJS.ProcessEnv): Promise<number> {
  const { values, positionals } = parseArgs({ args: [...argv], strict: false, allowPositionals: true })
  const [fileName] = positionals
  if (fileName === undefined || positionals.length > 1 || Object.keys(values).length > 0) {
    process.stderr.write('mqway import: needs one lighttpd.conf: mqway import LIGHTTPD.CONF\n')
    return 2
  }
  try {
    // Includes are relative to the named file, as in lighttpd.
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
 * Reads the files of an `include`: one, or those that match a pattern, sorted. As in lighttpd (glob(3) with braces), `*` does not match a
 * leading dot, and a directory is an error.
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
      // The importer reports a missing file with its line.
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
 * Returns the file and the cause.
 *
 * @param fileName for an error without a path, such as that of reading a directory
 */
function explainFileError({ path, code = '', message }: NodeJS.ErrnoException, fileName: string): string {
  return `${path ?? fileName}: ${fileErrors[code] ?? message}`
}

function isSystemError(error: unknown): error is NodeJS.ErrnoException {
  return error instanceof Error && 'syscall' in error
}
