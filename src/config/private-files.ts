import { existsSync, realpathSync } from 'node:fs'
import { basename, dirname, join, resolve, sep } from 'node:path'
import { isWebUrl } from './access.js'
import { displayPath, fileOptions, optionPath } from './options.js'
import type { Config } from './schema.js'

/** A file, directory or socket of the program itself, which must not be served. */
export interface PrivateFile {
  /** The option that names it, or a description. */
  readonly name: string
  /** Absolute; may not exist. */
  readonly path: string
}

/** Directory of the development certificate and its key, in the working directory. */
export const developmentCertificates = 'certs'

/**
 * Lists the program's own files: the configuration file, the data directory, the development certificate, every file that an
 * option names, and every Unix socket.
 *
 * @param file the configuration file, if there is one
 * @param cwd the directory that relative paths start from
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

/** Returns the `files` that are inside `directory`, or contain it; symbolic links are resolved. */
export function privateFilesInside(directory: string, files: readonly PrivateFile[]): readonly PrivateFile[] {
  const root = realPathOf(directory)
  return files.filter(({ path }) => {
    const real = realPathOf(path)
    return isInside(real, root) || isInside(root, real)
  })
}

/** Whether `path` is `directory` or inside it. Both are absolute, and without symbolic links. */
export function isInside(path: string, directory: string): boolean {
  return path === directory || path.startsWith(directory.endsWith(sep) ? directory : directory + sep)
}

/** Resolves the symbolic links of a path, as far as it exists. */
export function realPathOf(path: string): string {
  try {
    return realpathSync.native(path)
  } catch {
    const parent = dirname(path)
    return parent === path ? path : join(realPathOf(parent), basename(path))
  }
}

/** The paths in all options that name files, except the public directory, and Unix sockets. */
function namedFiles(config: Config): PrivateFile[] {
  const options = fileOptions()
  const isFile = (option: string, value: string): boolean =>
    options.has(option) && option !== 'public' && !(option === 'data' && value === 'none') && !isWebUrl(value)
  return leaves(config, []).flatMap(([path, value]) => {
    if (value.startsWith('unix:')) return [{ name: displayPath(path), path: value.slice('unix:'.length) }]
    return isFile(optionPath(path), value) ? [{ name: displayPath(path), path: value }] : []
  })
}

/** All texts in a tree of mappings and lists. */
function leaves(value: unknown, path: readonly PropertyKey[]): [path: readonly PropertyKey[], text: string][] {
  if (typeof value === 'string') return [[path, value]]
  if (Array.isArray(value)) return value.flatMap((inner, index) => leaves(inner, [...path, index]))
  if (typeof value !== 'object' || value === null) return []
  return Object.entries(value).flatMap(([key, inner]) => leaves(inner, [...path, key]))
}
