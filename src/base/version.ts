import { readFileSync } from 'node:fs'

/** The version that `package.json` beside the program names. */
export const version: string = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8')).version
