import { BlockList, isIP } from 'node:net'
import type { Config } from './schema.js'

export type ListenerName = 'http' | 'https' | 'mqtt' | 'mqtts'
export const listenerNames = ['http', 'https', 'mqtt', 'mqtts'] as const satisfies readonly ListenerName[]

/** A port that the gateway listens on. */
export interface Listener {
  readonly name: ListenerName
  /** A port, or `unix:` and a path. */
  readonly port: number | string
  readonly hosts: readonly string[]
  /** The path of the option with `hosts`. */
  readonly hostPath: readonly string[]
}

/** All listeners that are not off. */
export function listeners(config: Config): Listener[] {
  return listenerNames.flatMap(name => {
    const { port, host } = config[name]
    const hosts = host ?? config.host
    const hostPath = host === undefined ? ['host'] : [name, 'host']
    return portsOf(port).map(each => ({
      name,
      port: each,
      hosts: typeof hosts === 'string' ? [hosts] : hosts,
      hostPath,
    }))
  })
}

/** The ports of a listener; none if it is off. */
export function portsOf(port: number | string | readonly (number | string)[]): (number | string)[] {
  return [port].flat().filter(each => each !== 'off')
}

/** The listeners that other machines can reach. */
export function publicListeners(config: Config): Listener[] {
  return listeners(config).filter(({ port, hosts }) => typeof port === 'number' && !hosts.every(isLoopback))
}

/** Whether all TCP ports of the web servers are on loopback addresses. */
export function isWebOnLoopback(config: Config): boolean {
  return publicListeners(config).every(({ name }) => isMqttListener(name))
}

/** Whether a listener leads to the broker without HTTP. */
export function isMqttListener(name: ListenerName): name is 'mqtt' | 'mqtts' {
  return name === 'mqtt' || name === 'mqtts'
}

/** Whether a listener has TLS, with the certificates of `https`. */
export function isTlsListener(name: ListenerName): boolean {
  return name === 'https' || name === 'mqtts'
}

const loopbackRange = new BlockList()
loopbackRange.addSubnet('127.0.0.0', 8, 'ipv4')
loopbackRange.addAddress('::1', 'ipv6')

export function isLoopback(host: string): boolean {
  if (host === 'localhost') return true
  const family = isIP(host)
  return family !== 0 && loopbackRange.check(host, family === 4 ? 'ipv4' : 'ipv6')
}

/** Whether `host` is the unspecified address. */
export function isAny(host: string): boolean {
  return host === '0.0.0.0' || host === '::'
}
