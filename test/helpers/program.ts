import { fileURLToPath } from 'node:url'
import { type RunningProgram, run } from './processes.js'

const program = fileURLToPath(new URL('../../dist/cli.js', import.meta.url))

/** The built `mqway`. Only the `variables` of the test configure it, not the environment of the machine. */
export function mqway(args: readonly string[], cwd: string, variables: NodeJS.ProcessEnv = {}): RunningProgram {
  const env = Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith('MQWAY_')))
  return run(process.execPath, [program, ...args], { cwd, env: { ...env, ...variables } })
}

/** A `mqway serve` that is ready. */
export interface ServingProgram extends RunningProgram {
  readonly urls: readonly string[]
  /** The URL of this scheme. */
  url(scheme: 'http' | 'https' | 'ws' | 'wss' | 'mqtt' | 'mqtts'): string
  /** The next log line with this text in its message. */
  logged(text: string): Promise<Record<string, unknown>>
}

/** Starts `mqway serve` with a JSON log and waits until it is ready. */
export async function serving(
  args: readonly string[],
  cwd: string,
  variables: NodeJS.ProcessEnv = {},
): Promise<ServingProgram> {
  const running = mqway(['serve', '--log-format', 'json', ...args], cwd, variables)
  const logged = async (text: string): Promise<Record<string, unknown>> => {
    for (;;) {
      const line: Record<string, unknown> = JSON.parse(await running.line())
      if (String(line['msg']).includes(text)) return line
    }
  }
  const { urls } = await logged('is ready')
  if (!Array.isArray(urls)) throw new Error('the line that says ready names no URLs')
  return {
    ...running,
    urls,
    url: scheme => urls.find(url => url.startsWith(`${scheme}://`)) ?? '',
    logged,
  }
}
