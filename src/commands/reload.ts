import { resolve } from 'node:path'
import type { ConfigChange } from '../config/changes.js'
import { type LoadedConfig, loadConfig } from '../config/load.js'
import { ConfigError } from '../config/problems.js'
import { askControl, type ControlAnswer } from './control.js'

/**
 * `mqway reload`: checks the configuration, has the running gateway reload its own, and prints what that did.
 *
 * @param argv the flags of `serve`
 * @returns exit code 0; 1 if no gateway answers; 2 if it has refused
 * @throws {ConfigError} for an invalid configuration, without asking the gateway; and without `control`
 */
export async function reload(argv: readonly string[], env: NodeJS.ProcessEnv): Promise<number> {
  const loaded = loadConfig({ argv, env, cwd: process.cwd() })
  return report(loaded, { method: 'POST', path: '/reload', changed: 'changed', none: 'reloaded, nothing has changed' })
}

/**
 * `mqway check --diff`: prints what a reload would do. Returns and throws as `reload`.
 *
 * @param loaded the configuration that was checked
 */
export async function diff(loaded: LoadedConfig): Promise<number> {
  return report(loaded, { method: 'GET', path: '/changes', changed: 'a reload changes', none: 'nothing differs' })
}

interface Words {
  readonly method: 'GET' | 'POST'
  readonly path: string
  /** Before an option that takes effect with a reload. */
  readonly changed: string
  /** Without any change. */
  readonly none: string
}

async function report({ config, file }: LoadedConfig, words: Words): Promise<number> {
  if (config.control === undefined) {
    throw new ConfigError([
      'control: is needed to ask the running mqway: unix:/run/mqway/control.sock, for example, and a restart. SIGHUP reloads without it',
    ])
  }
  let answer: ControlAnswer
  try {
    answer = await askControl(config.control, words.method, words.path)
  } catch (error) {
    process.stderr.write(`mqway: ${error instanceof Error ? error.message : String(error)}\n`)
    return 1
  }
  const own = file === undefined ? undefined : resolve(file)
  if (answer.file !== own) {
    process.stderr.write(`note: the configuration file of the running mqway is ${answer.file ?? 'none'}\n`)
  }
  if (answer.problems.length > 0) {
    process.stderr.write(answer.problems.map(problem => `refused: ${problem}\n`).join(''))
    return 2
  }
  process.stdout.write(describe(answer, words))
  return 0
}

function describe({ changes }: ControlAnswer, { changed, none }: Words): string {
  const line = ({ option, from, to }: ControlAnswer['changes'][number], label: string): string =>
    `${label}: ${option}${from === undefined ? '' : `: ${from} -> ${to}`}\n`
  const of = (effect: ConfigChange['effect'], label: string): string =>
    changes
      .filter(change => change.effect === effect)
      .map(change => line(change, label))
      .join('')
  return changes.length === 0 ? `${none}\n` : of('reload', changed) + of('restart', 'needs a restart')
}
