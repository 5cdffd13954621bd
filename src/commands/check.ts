import { loadConfig } from '../config/load.js'
import { writeConfig } from '../config/write.js'

/**
 * `mqway check`: prints the effective configuration, as YAML that is a configuration file again.
 *
 * @param argv the flags of `serve`
 * @returns exit code 0
 * @throws {ConfigError} when there is anything wrong with the configuration
 */
export async function check(argv: readonly string[], env: NodeJS.ProcessEnv): Promise<number> {
  const { config } = loadConfig({ argv, env, cwd: process.cwd() })
  process.stdout.write(writeConfig(config))
  return 0
}
