import { createLog } from '../../src/base/log.js'

/** A log that writes nothing. */
export const silentLog = createLog({ level: 'silent', format: 'json' })
