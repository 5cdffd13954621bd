import type { FastifyInstance } from 'fastify'
import { pathOf } from '../../http/request-target.js'
import { addRouteConstraint } from '../../transports/route-constraint.js'

/** The URL of a database, and the readers that it applies to. */
export interface DatabaseUrl {
  readonly url: string
  /** As in the options of a route; empty for all. */
  readonly constraints: { readonly reader?: Reader }
}

/** A browser that opens a page, or any other client. */
type Reader = 'page' | 'program'

/**
 * The URLs of databases. With the prefix `/` they are beside the pages: a name with a dot is a file, and a name with a trailing slash is a
 * directory for a browser that opens a page, and a database for programs.
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

/**
 * Adds the route constraint `reader`; call it before adding routes with it.
 *
 * @param directories names of the directories with pages: requests for them are for pages
 */
export function addReaderStrategy(app: FastifyInstance, directories: ReadonlySet<string>): void {
  const isPage = (url = '/'): boolean => directories.has(pathOf(url).split('/', 2)[1] ?? '')
  addRouteConstraint(
    app,
    'reader',
    ({ headers, url }): Reader => (headers.accept?.includes('text/html') || isPage(url) ? 'page' : 'program'),
  )
}
