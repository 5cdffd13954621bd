import { once } from 'node:events'
import { createServer, type ServerResponse, request as sendRequest } from 'node:http'
import { z } from 'zod'
import { StartError } from '../base/start-error.js'
import type { ConfigChange } from '../config/changes.js'
import { ConfigError } from '../config/load.js'
import { listenAtPath } from '../server/listener.js'

/*
 * The Unix socket of the option `control`: HTTP, `GET /changes` and `POST /reload`. Who may open it is up to its file mode.
 */

/** The actions behind the socket. */
export interface ControlOptions {
  /** The changes that a reload would make. @throws {ConfigError} when it would be refused */
  readonly compare: () => Promise<readonly ConfigChange[]>
  /** Reloads. @returns the changes; throws when it is refused */
  readonly reload: () => Promise<readonly ConfigChange[]>
  /** The absolute path of the configuration file, if there is one. */
  readonly file: string | undefined
}

export interface Control {
  /** Closes the socket and its connections. Idempotent. */
  close(): void
}

/** For its owner, and root. */
const socketMode = 0o600

/** Commands at a time. */
const maxConnections = 16

/** Milliseconds that a reload may take, as seen by the command that asks for it. */
const answerTimeout = 120_000

/** Bytes of an answer. */
const maxAnswer = 16 * 1024 ** 2

const answerSchema = z.object({
  file: z.string().optional(),
  changes: z.array(
    z.object({
      option: z.string(),
      effect: z.enum(['reload', 'restart']),
      from: z.string().optional(),
      to: z.string().optional(),
    }),
  ),
  /** Why a reload is refused, one line each; empty if it is not. */
  problems: z.array(z.string()),
})

/** The answer of a running gateway. */
export type ControlAnswer = z.output<typeof answerSchema>

/**
 * Starts to answer commands.
 *
 * @param socket `unix:/path`
 * @throws {StartError} if the socket cannot be made
 */
export async function startControl(socket: string, options: ControlOptions): Promise<Control> {
  const actions: Readonly<Record<string, ControlOptions['reload']>> = {
    'GET /changes': options.compare,
    'POST /reload': options.reload,
  }
  const server = createServer(({ method, url }, response) => {
    const action = actions[`${method} ${url}`]
    if (action) void answer(response, options.file, action)
    else response.writeHead(404).end()
  })
  server.maxConnections = maxConnections
  server.setTimeout(answerTimeout)
  try {
    await listenAtPath(server, pathOf(socket), socketMode)
  } catch (error) {
    server.close()
    throw new StartError(`control: ${socket} cannot be used: ${error instanceof Error ? error.message : error}`, {
      cause: error,
    })
  }
  return {
    close: () => {
      server.close()
      server.closeAllConnections()
    },
  }
}

async function answer(
  response: ServerResponse,
  file: string | undefined,
  action: ControlOptions['reload'],
): Promise<void> {
  const result: ControlAnswer = { ...(file !== undefined && { file }), changes: [], problems: [] }
  try {
    result.changes = [...(await action())]
  } catch (error) {
    result.problems = error instanceof ConfigError ? [...error.problems] : [messageOf(error)]
  }
  response.setHeader('content-type', 'application/json')
  response.end(JSON.stringify(result))
}

/**
 * Sends a command to a running gateway.
 *
 * @param socket `unix:/path`
 * @throws {Error} if none answers there
 */
export async function askControl(socket: string, method: 'GET' | 'POST', path: string): Promise<ControlAnswer> {
  const sent = sendRequest({ socketPath: pathOf(socket), method, path, timeout: answerTimeout })
  sent.on('timeout', () => sent.destroy(new Error(`no answer within ${answerTimeout / 1000} s`)))
  try {
    sent.end()
    const [response] = await once(sent, 'response')
    const chunks: Buffer[] = []
    let size = 0
    for await (const chunk of response) {
      size += chunk.length
      if (size > maxAnswer) throw new Error('its answer is too long')
      chunks.push(chunk)
    }
    return answerSchema.parse(JSON.parse(Buffer.concat(chunks).toString()))
  } catch (error) {
    throw new Error(`no mqway answers at control, ${socket}: ${messageOf(error)}`, { cause: error })
  } finally {
    sent.destroy()
  }
}

function pathOf(socket: string): string {
  return socket.slice('unix:'.length)
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}
