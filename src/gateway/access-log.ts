import { resolve } from 'node:path'
import type { ClientResolver } from '../access/client-address.js'
import { LineFile } from '../base/line-file.js'
import type { Logger } from '../base/log.js'
import type { Metrics } from '../base/metrics.js'
import { StartError } from '../base/start-error.js'
import type { Config } from '../config/schema.js'
import { standardOutput } from '../config/web.js'
import { accessFormats } from '../http/access-format.js'
import { AccessLog } from '../http/access-log.js'
import type { WebApp } from '../server/web-servers.js'
import type { CloseStack } from './close-stack.js'

interface Parts {
  readonly cwd: string
  readonly resolveClient: ClientResolver
  readonly log: Logger
  readonly metrics: Metrics
}

/**
 * Opens the access log; `undefined` if there is none.
 *
 * @param opened closes its file
 * @throws {StartError} if the file cannot be opened
 */
export async function openAccessLog(
  { accessLog: config, trustedProxies }: Config,
  { cwd, resolveClient, log, metrics }: Parts,
  opened: CloseStack,
): Promise<{ readonly accessLog: AccessLog; reopen(): Promise<void> } | undefined> {
  if (config === undefined) return undefined
  const path = config.file === standardOutput ? undefined : resolve(cwd, config.file)
  const onDropped = (lines: number): void => metrics.accessLinesDropped(lines)
  const file = await LineFile.open({ path, log, onDropped }).catch((error: Error) => {
    throw new StartError(`accessLog.file: ${config.file} cannot be opened: ${error.message}`)
  })
  opened.add(file)
  const accessLog = new AccessLog({ format: accessFormats[config.format], file, resolveClient, trustedProxies })
  return { accessLog, reopen: () => file.reopen() }
}

/** An app whose requests are in the access log, if there is one. */
export function withAccessLog(app: WebApp, accessLog: AccessLog | undefined): WebApp {
  if (accessLog === undefined) return app
  return {
    routing: (request, response) => {
      accessLog.begin(request, response)
      app.routing(request, response)
    },
  }
}
