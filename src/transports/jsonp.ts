import type { FastifyRequest } from 'fastify'

/*
 * JSON as a script that any page can load, whatever its origin: what a query names is called with it. The JSON is on one line (`oneLineJson`), because
 * before ES2019 U+2028 and U+2029 ended a line inside of a string.
 */

export const scriptType = 'application/javascript; charset=utf-8'

/** What `callback=` may be: a name, or a member of something that has one. */
export const callbackPattern = /^[A-Za-z0-9._[\]]{1,128}$/

/** What is before the JSON. The comment keeps the script from being another kind of file by what it begins with. */
export function scriptStart(callback: string): string {
  return `/**/${callback}(`
}

/** What is behind the JSON. */
export const scriptEnd = ');'

/** Whether a request wants a script, right or wrong. */
export function asksForScript({ query }: FastifyRequest): boolean {
  return typeof query === 'object' && query !== null && 'callback' in query
}
