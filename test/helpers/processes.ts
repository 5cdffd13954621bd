import { type ChildProcessWithoutNullStreams, spawn } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'

/** A program started by a test. */
export interface RunningProgram {
  readonly child: ChildProcessWithoutNullStreams
  /** Its next line on standard output; rejects if it ends before. */
  line(): Promise<string>
  /** Its output on standard error so far. */
  readonly errors: () => string
  /** Its exit code. */
  exited(): Promise<number | null>
  /** Ends it if it is running. */
  stop(signal?: NodeJS.Signals): Promise<void>
}

/** Starts a program; its output is buffered until a test reads the next line. */
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
