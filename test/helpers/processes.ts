import { type ChildProcessWithoutNullStreams, spawn } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'

/** A program that a test has started. */
export interface RunningProgram {
  readonly child: ChildProcessWithoutNullStreams
  /** The next line that it prints on standard output; rejects when it ends before. */
  line(): Promise<string>
  /** All that it has printed on standard error. */
  readonly errors: () => string
  /** Its exit code. */
  exited(): Promise<number | null>
  /** Ends it, if it has not ended by itself. */
  stop(signal?: NodeJS.Signals): Promise<void>
}

/** Starts a program; nothing of its output is lost while nobody waits for a line. */
export function run(
  command: string,
  args: readonly string[],
  options: { cwd?: string; env?: NodeJS.ProcessEnv } = {},
): RunningProgram {
  const child = spawn(command, args, { ...options, env: options.env ?? process.env })
  const lines: string[] = []
  const waiting: { resolve: (line: string) => void; reject: (error: Error) => void }[] = []
  let errors = ''
  let code: number | null | undefined
  child.stderr.on('data', chunk => {
    errors += chunk
  })
  createInterface({ input: child.stdout }).on('line', line => {
    const next = waiting.shift()
    if (next) next.resolve(line)
    else lines.push(line)
  })
  const closed = new Promise<void>(resolve => {
    child.on('error', error => {
      errors += error.message
    })
    child.on('close', exitCode => {
      code = exitCode
      for (const { reject } of waiting.splice(0)) reject(new Error(`${command} ended with ${exitCode}: ${errors}`))
      resolve()
    })
  })
  return {
    child,
    errors: () => errors,
    line: () => {
      const line = lines.shift()
      if (line !== undefined) return Promise.resolve(line)
      if (code !== undefined) return Promise.reject(new Error(`${command} ended with ${code}: ${errors}`))
      return new Promise((resolve, reject) => waiting.push({ resolve, reject }))
    },
    exited: async () => {
      await closed
      return code ?? null
    },
    stop: async (signal = 'SIGTERM') => {
      if (child.exitCode === null && child.signalCode === null) {
        child.kill(signal)
        await once(child, 'exit')
      }
    },
  }
}
