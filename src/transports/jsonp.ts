import type { FastifyRequest } from 'fastify'

/*
 * JSONP: JSON as a script that calls a function of the page, readable from any origin. The JSON is on one line (`oneLineJson`), because before ES2019
 * U+2028 and U+2029 ended a line inside a string.
 */

export const scriptType = 'application/javascript; charset=utf-8'

/** The syntax of `callback=`: a name or a member expression. */
export const callbackPattern = /^[A-Za-z0-9._[\]]{1,128}$/

/** Before the JSON. The comment keeps the response from being taken for another file type by its first bytes. */
export function scriptStart(callback: string): string {
  return `/**/${callback}(`
}

/** Behind the JSON. */
export const scriptEnd = ');'

/** Whether a request has `callback=`, valid or not. */
export function asksForScript({ query }: FastifyRequest): boolean {
  return typeof query === 'object' && query !== null && 'callback' in query
}
