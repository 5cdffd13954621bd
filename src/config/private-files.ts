import { existsSync, realpathSync } from 'node:fs'
import { basename, dirname, join, resolve, sep } from 'node:path'
import { isWebUrl } from './access.js'
import { displayPath, fileOptions, optionPath } from './options.js'
import type { Config } from './schema.js'

/** A file, a directory or a socket of the program itself, which is not to be served. */
export interface PrivateFile {
  /** What it is: the option that names it, or a few words. */
  readonly name: string
  /** Absolute; it may not exist (yet). */
  readonly path: string
}

/** Where the development certificate and its key are kept, below the working directory. */
export const developmentCertificates = 'certs'

/**
 * Lists the program's own files: the configuration file, the data directory, the development certificate, every file that an
 * option names, and every Unix socket.
 *
 * @param file the configuration file, where there is one
 * @param cwd where relative paths begin
 */
export function listPrivateFiles(config: Config, file: string | undefined, cwd: string): PrivateFile[] {
  const certificates = resolve(cwd, developmentCertificates)
  const isCertificateMade = config.https.port !== 'off' && config.https.cert === undefined
  const found = [
    ...(file === undefined ? [] : [{ name: 'configuration file', path: resolve(cwd, file) }]),
    ...(isCertificateMade || existsSync(join(certificates, 'localhost.key'))
      ? [{ name: 'development certificate', path: certificates }]
      : []),
    ...namedFiles(config).map(({ name, path }) => ({ name, path: resolve(cwd, path) })),
  ]
  return [...new Map(found.map(own => [own.path, own])).values()]
}

/** Those of `files` that are inside of `directory`, or have it inside of them; symbolic links are followed. */
export function privateFilesInside(directory: string, files: readonly PrivateFile[]): readonly PrivateFile[] {
  const root = realPathOf(directory)
  return files.filter(({ path }) => {
    const real = realPathOf(path)
    return isInside(real, root) || isInside(root, real)
  })
}

/** Whether `path` is `directory` or below it. Both are absolute and without symbolic links. */
export function isInside(path: string, directory: string): boolean {
  return path === directory || path.startsWith(directory.endsWith(sep) ? directory : directory + sep)
}

/** The path without symbolic links, as far as it exists. */
export function realPathOf(path: string): string {
  try {
    return realpathSync.native(path)
  } catch {
    const parent = dirname(path)
    return parent === path ? path : join(realPathOf(parent), basename(path))
  }
}

/** The values of all options that are names of files, but for the directory that is served; and of those that are Unix sockets. */
function namedFiles(config: Config): PrivateFile[] {
  const options = fileOptions()
  const isFile = (option: string, value: string): boolean =>
    options.has(option) && option !== 'public' && !(option === 'data' && value === 'none') && !isWebUrl(value)
  return leaves(config, []).flatMap(([path, value]) => {
    if (value.startsWith('unix:')) return [{ name: displayPath(path), path: value.slice('unix:'.length) }]
    return isFile(optionPath(path), value) ? [{ name: displayPath(path), path: value }] : []
  })
}

/** Every text in a tree of mappings and lists. */
function leaves(value: unknown, path: readonly PropertyKey[]): [path: readonly PropertyKey[], text: string][] {
  if (typeof value === 'string') return [[path, value]]
  if (Array.isArray(value)) return value.flatMap((inner, index) => leaves(inner, [...path, index]))
  if (typeof value !== 'object' || value === null) return []
  return Object.entries(value).flatMap(([key, inner]) => leaves(inner, [...path, key]))
}
