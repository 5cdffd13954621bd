import { loadConfig } from '../config/load.js'
import { fileModes, riskWarnings } from '../config/warnings.js'
import { writeConfig } from '../config/write.js'

/**
 * `mqway check`: prints the effective configuration as YAML that can be used as a configuration file, and warnings on standard error.
 *
 * @param argv the flags of `serve`
 * @returns exit code 0, also with warnings
 * @throws {ConfigError} for an invalid configuration
 */
export async function check(argv: readonly string[], env: NodeJS.ProcessEnv): Promise<number> {
  const cwd = process.cwd()
  const loaded = loadConfig({ argv, env, cwd })
  const warnings = riskWarnings(loaded, fileModes(cwd))
  process.stderr.write(warnings.map(line => `warning: ${line}\n`).join(''))
  process.stdout.write(writeConfig(loaded.config))
  return 0
}
