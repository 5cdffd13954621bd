import { accessSync, constants, statSync } from 'node:fs'
import { codeOf } from '../base/error-code.js'

/** Returns why a file or directory cannot be read, to follow its path: `must be …`; `undefined` if it can. */
export function readingProblem(path: string, kind: 'file' | 'directory'): string | undefined {
  try {
    const found = statSync(path)
    if (kind === 'file' ? found.isDirectory() : !found.isDirectory()) return `must be a ${kind}`
    accessSync(path, constants.R_OK)
    return undefined
  } catch (error) {
    const code = codeOf(error)
    return code === 'ENOENT' ? `must be a ${kind} that exists` : `must be a ${kind} that mqway may read (${code})`
  }
}
