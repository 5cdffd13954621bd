import { existsSync, realpathSync } from 'node:fs'
import { basename, dirname, join, resolve, sep } from 'node:path'
import { isWebUrl } from './access.js'
import { isTlsListener, listeners } from './listeners.js'
import { displayPath, fileTexts, textsIn } from './options.js'
import type { Config } from './schema.js'
import { standardOutput } from './web.js'

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
  const hasTls = listeners(config).some(({ name }) => isTlsListener(name))
  const isCertificateMade = hasTls && config.https.cert === undefined && config.https.acme === undefined
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

/** The files of all options except the public directory, and Unix sockets. */
function namedFiles(config: Config): PrivateFile[] {
  const sockets = textsIn(config).flatMap(({ path, text }) =>
    text.startsWith('unix:') ? [{ path, text: text.slice('unix:'.length).replace(/\?db=\d*$/, '') }] : [],
  )
  const files = fileTexts(config).filter(({ path: [section], text }) => {
    const isNone = (section === 'data' && text === 'none') || (section === 'accessLog' && text === standardOutput)
    return section !== 'public' && !isNone && !isWebUrl(text)
  })
  return [...sockets, ...files].map(({ path, text }) => ({ name: displayPath(path), path: text }))
}
