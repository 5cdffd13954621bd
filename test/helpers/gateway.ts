import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createLog, type Logger } from '../../src/base/log.js'
import { type LoadedConfig, loadConfig } from '../../src/config/load.js'
import type { ConfigInput } from '../../src/config/schema.js'
import { type Gateway, startGateway } from '../../src/gateway/gateway.js'

/** A complete gateway, as started by `mqway serve`, for one test. */
export interface TestGateway {
  /** Its URLs; empty for a listener that is off. */
  readonly urls: { readonly http: string; readonly https: string; readonly mqtt: string; readonly mqtts: string }
  readonly mqttPort: number
  readonly mqttsPort: number
  readonly gateway: Gateway
  /** A directory for this gateway only; removed with it. */
  readonly directory: string
  /** Changes sections of its configuration file, and reloads it. */
  reload(changes: ConfigInput): Promise<void>
  close(): Promise<void>
}

/**
 * Starts a gateway on free ports of loopback with the built-in broker in memory, changed by `config`.
 *
 * @param log instead of none
 */
export async function startTestGateway(config: ConfigInput = {}, log?: Logger): Promise<TestGateway> {
  const directory = await mkdtemp(join(tmpdir(), 'mqway-'))
  const file = join(directory, 'mqway.yaml')
  const load = async ({ http, https, mqtt, ...rest }: ConfigInput): Promise<LoadedConfig> => {
    const input: ConfigInput = {
      data: 'none',
      log: { level: 'silent' },
      http: { port: 0, ...http },
      https: { port: 0, ...https },
      mqtt: { port: 0, ...mqtt },
      ...rest,
    }
    // JSON is YAML.
    await writeFile(file, JSON.stringify(input))
    return loadConfig({ argv: ['--config', file], env: {}, cwd: directory })
  }
  const loaded = await load(config)
  const gateway = await startGateway(loaded.config, log ?? createLog(loaded.config.log), { cwd: directory })
  const url = (scheme: string): string => gateway.urls.find(candidate => candidate.startsWith(`${scheme}://`)) ?? ''
  const urls = { http: url('http'), https: url('https'), mqtt: url('mqtt'), mqtts: url('mqtts') }
  return {
    urls,
    mqttPort: portOf(urls.mqtt),
    mqttsPort: portOf(urls.mqtts),
    gateway,
    directory,
    reload: async changes => gateway.reload((await load({ ...config, ...changes })).config),
    close: async () => {
      await gateway.close(1000)
      await rm(directory, { recursive: true, force: true })
    },
  }
}

function portOf(url: string): number {
  return url === '' ? 0 : Number(new URL(url).port)
}
