import { displayPath } from './options.js'
import { type Config, configSchema } from './schema.js'

/** Limits that the table of options has and that nothing counts yet. */
const limits = [
  'connectionsPerUser',
  'upgradesPerSecond',
  'upgradesBurst',
  'bytesPerSecond',
  'bodySize',
  'bodyTimeout',
  'urlLength',
] as const satisfies (keyof Config['limits'])[]

/**
 * Options that were set and that the gateway does not act upon yet, one line each. A gateway that was told who may
 * connect and lets everybody in is worse than one that does not start.
 */
export function unenforcedOptions(config: Config): string[] {
  const defaults = configSchema.parse({}).limits
  const paths = [
    ...(config.access === undefined ? [] : [['access']]),
    ...config.tunnels.flatMap((tunnel, index) =>
      tunnel.requireIdentity ? [['tunnels', index, 'requireIdentity']] : [],
    ),
    ...limits.flatMap(name => (config.limits[name] === defaults[name] ? [] : [['limits', name]])),
  ]
  return paths.map(path => `${displayPath(path)}: is not enforced yet by mqway serve, which does not start with it`)
}
