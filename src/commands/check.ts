import { loadConfig } from '../config/load.js'
import { fileModes, riskWarnings } from '../config/warnings.js'
import { writeConfig } from '../config/write.js'

const diffFlag = '--diff'

/**
 * `mqway check`: prints the effective configuration as YAML that can be used as a configuration file, and warnings on standard error.
 *
 * @param argv the flags of `serve`; with `--diff`, prints what a reload of the running gateway would change instead
 * @returns exit code 0, also with warnings; with `--diff` see there
 * @throws {ConfigError} for an invalid configuration
 */
export async function check(argv: readonly string[], env: NodeJS.ProcessEnv): Promise<number> {
  const cwd = process.cwd()
  const loaded = loadConfig({ argv: argv.filter(arg => arg !== diffFlag), env, cwd })
  const warnings = riskWarnings(loaded, fileModes(cwd))
  process.stderr.write(warnings.map(line => `warning: ${line}\n`).join(''))
  if (argv.includes(diffFlag)) {
    const { diff } = await import('./reload.js')
    return diff(loaded)
  }
  process.stdout.write(writeConfig(loaded.config))
  return 0
}
