import { z } from 'zod'
import { duration } from './units.js'
import { topicFilter, wholeNumber } from './values.js'

/*
 * The options of `compat:`: the HTTP interfaces of other systems.
 */

/** mqway's own paths. */
const ownPaths = /^\/(v1|healthz|readyz|metrics)(\/|$)/

const prefix = z
  .string()
  .regex(/^\/([\w.~-]+(\/[\w.~-]+)*)?$/, { error: 'must be a path such as /pere, or /' })
  // Clients remove these from a URL.
  .refine(path => !/\/\.\.?(\/|$)/.test(path), { error: 'must not have . or .. between its slashes' })
  .refine(path => !ownPaths.test(path), { error: 'must not be one of mqway’s own paths, as /v1 and /healthz are' })

const pere = z.strictObject({
  prefix: prefix.default('/pere').describe('Prefix of its URLs'),
})

const rrr = z.strictObject({
  prefix: prefix.default('/rrr').describe('Prefix of its URLs'),
  wait: duration({ min: '100ms', max: '1m' })
    .prefault('5s')
    .describe('Timeout of a request for a handle; the response then has no message'),
  maxHandles: wholeNumber(1, 1_000_000).default(10_000).describe('Handles with queued messages'),
  maxQueued: wholeNumber(1, 100_000)
    .default(100)
    .describe('Queued messages of a handle; beyond, the oldest are dropped'),
  maxAge: duration({ min: '1s', max: '1d' }).prefault('1m').describe('How long a message is queued'),
  websocketTopicFilters: z.array(topicFilter).min(1).default(['#']).describe('Topics of its WebSockets; others: 404'),
  binary: z.boolean().default(false).describe('Whether its WebSockets also accept and send binary frames'),
})

const couchdb = z.strictObject({
  prefix: prefix.default('/couchdb').describe('Prefix of its URLs'),
  timeout: duration({ min: '1s', max: '10m' })
    .prefault('60s')
    .describe('Timeout of _changes?feed=longpoll without a change'),
})

const orOff = <T extends z.ZodType>(section: T) =>
  z.union([z.literal('off'), section], { error: 'must be off, or a mapping' })

/** `compat:`, the URLs of other systems, on the same topics. */
export const compat = z
  .strictObject({
    pere: orOff(pere).prefault({}).describe('PERE: events with return receipts; or off'),
    rrr: orOff(rrr).prefault({}).describe('RRR: HTTP push by handle, and plain WebSockets; or off'),
    couchdb: orOff(couchdb).prefault({}).describe('CouchDB’s _changes; or off'),
  })
  .superRefine(({ pere, rrr, couchdb }, context) => {
    if (pere === 'off') return
    for (const [name, other] of Object.entries({ rrr, couchdb })) {
      if (other === 'off' || !isWithinPere(pere.prefix, other.prefix)) continue
      const path = [name, 'prefix']
      context.addIssue({ code: 'custom', path, message: `must not be among the paths of compat.pere (${pere.prefix})` })
    }
  })

/** Whether a prefix begins with a path of PERE. */
function isWithinPere(pere: string, path: string): boolean {
  const base = pere === '/' ? '' : pere
  return ['feed', 'push', 'feedback', 'admin'].some(word => `${path}/`.startsWith(`${base}/${word}/`))
}

/** `compat:` as the program uses it. */
export type CompatConfig = z.output<typeof compat>
export type RrrConfig = Exclude<CompatConfig['rrr'], 'off'>
export type CouchdbConfig = Exclude<CompatConfig['couchdb'], 'off'>
