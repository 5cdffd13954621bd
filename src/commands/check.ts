import { loadConfig } from '../config/load.js'
import { fileModes, riskWarnings } from '../config/warnings.js'
import { writeConfig } from '../config/write.js'

/**
 * `mqway check`: prints the effective configuration, as YAML that is a configuration file again; and, on standard error,
 * one line for everything that is allowed and risky.
 *
 * @param argv the flags of `serve`
 * @returns exit code 0, also with warnings
 * @throws {ConfigError} when there is anything wrong with the configuration
 */
export async function check(argv: readonly string[], env: NodeJS.ProcessEnv): Promise<number> {
  const cwd = process.cwd()
  const loaded = loadConfig({ argv, env, cwd })
  const warnings = riskWarnings(loaded, fileModes(cwd))
  process.stderr.write(warnings.map(line => `warning: ${line}\n`).join(''))
  process.stdout.write(writeConfig(loaded.config))
  return 0
}
