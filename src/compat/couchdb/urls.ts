import type { FastifyInstance } from 'fastify'
import { pathOf } from '../../http/request-target.js'

/** The URL of a database, and the readers for whom it is one. */
export interface DatabaseUrl {
  readonly url: string
  /** As in the options of a route; empty for all. */
  readonly constraints: { readonly reader?: Reader }
}

/** A browser that opens a page, or anybody else. */
type Reader = 'page' | 'program'

/**
 * The URLs of databases. Where pages are served beside them, a name with a dot is that of a file; a name with a slash at its end is that of a directory for
 * a browser that opens a page, and of a database for programs.
 */
export function databaseUrls(prefix: string): DatabaseUrl[] {
  if (prefix !== '/') {
    return [
      { url: `${prefix}/:db`, constraints: {} },
      { url: `${prefix}/:db/`, constraints: {} },
    ]
  }
  return [
    { url: '/:db(^[^.]+$)', constraints: {} },
    { url: '/:db(^[^.]+$)/', constraints: { reader: 'program' } },
  ]
}

type Strategy = Parameters<FastifyInstance['addConstraintStrategy']>[0]
type Storage = ReturnType<Strategy['storage']>

/**
 * Tells the readers of a URL apart, where a route asks for that; call it before any such route is added.
 *
 * @param directories names of those that pages are served of: whoever asks for one wants its page
 */
export function addReaderStrategy(app: FastifyInstance, directories: ReadonlySet<string>): void {
  const isPage = (url = '/'): boolean => directories.has(pathOf(url).split('/', 2)[1] ?? '')
  app.addConstraintStrategy({
    name: 'reader',
    storage: () => {
      const handlers = new Map<unknown, Parameters<Storage['set']>[1]>()
      return {
        get: reader => handlers.get(reader) ?? null,
        set: (reader, handler) => void handlers.set(reader, handler),
      }
    },
    deriveConstraint: ({ headers, url }): Reader =>
      headers.accept?.includes('text/html') || isPage(url) ? 'page' : 'program',
    validate: () => {},
  })
}
