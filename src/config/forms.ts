import { isIP } from 'node:net'
import proxyAddr from 'proxy-addr'

/*
 * Parsers and validators of single values: broker URLs, origins, host names, address ranges.
 */

/** The address in a broker URL. */
export interface BrokerAddress {
  readonly protocol: 'mqtt' | 'mqtts' | 'unix'
  /** A name or an address without brackets; the path of a Unix socket. */
  readonly host: string
  /** 1883 (mqtt) or 8883 (mqtts) where the URL names none; 0 for a Unix socket. */
  readonly port: number
}

/**
 * Parses a broker URL: `mqtt://host:port`, `mqtts://host:port`, `unix:/path/to/socket`.
 *
 * @returns `undefined` for anything else, also for a URL with a path, query or password
 */
export function parseBrokerUrl(url: string): BrokerAddress | undefined {
  if (/^unix:./.test(url)) return { protocol: 'unix', host: url.slice('unix:'.length), port: 0 }
  if (!/^mqtts?:\/\/[^/?#@]+\/?$/.test(url) || !URL.canParse(url)) return undefined
  const { protocol, hostname, port } = new URL(url)
  if (hostname === '' || port === '0') return undefined
  const plain = protocol === 'mqtt:'
  return {
    protocol: plain ? 'mqtt' : 'mqtts',
    host: hostname.replace(/^\[|\]$/g, ''),
    port: port === '' ? (plain ? 1883 : 8883) : Number(port),
  }
}

/** An origin with its scheme, or a host alone; `*.` in front of a host stands for its subdomains. */
const originForm =
  /^(?:[a-z][a-z0-9+.-]*:\/\/)?(?:\*\.)?([\p{L}\p{N}_-][\p{L}\p{N}_.-]*(?::\d+)?|\[[0-9a-f:.]+\](?::\d+)?)$/iu

/** Whether `text` is a host name or an address without a port, `*.` and a host name, or `*`. */
export function isHostName(text: string): boolean {
  if (text === '*' || isIP(text) !== 0) return true
  return /^(?:\*\.)?[^\s/\\?#@:*[\]]+$/.test(text) && URL.canParse(`http://${text.replace('*.', '')}`)
}

/** Whether `text` is a valid entry of `origins`. */
export function isOriginPattern(text: string): boolean {
  if (text === 'same-origin' || text === 'null' || text === '*') return true
  const expression = expressionOf(text)
  if (expression !== undefined) return regexProblem(expression) === undefined
  const authority = originForm.exec(text)?.[1]
  return authority !== undefined && URL.canParse(`http://${authority}`)
}

/** The regular expression in `/…/`; `undefined` for any other text. */
export function expressionOf(text: string): string | undefined {
  return /^\/(.+)\/$/s.exec(text)?.[1]
}

/** Whether `text` is a valid entry of a tunnel's `hosts`. */
export function isHostPattern(text: string): boolean {
  const expression = expressionOf(text)
  if (expression !== undefined) return regexProblem(expression) === undefined
  return /^(?:\*\.)?(?:[\p{L}\p{N}_-][\p{L}\p{N}_.-]*|\[[0-9a-f:.]+\])$/iu.test(text)
}

/** Whether `text` is a valid entry of `deny`. */
export function isDeniedPath(text: string): boolean {
  const expression = expressionOf(text)
  return expression === undefined || regexProblem(expression) === undefined
}

/** The error of an invalid regular expression, which is compiled with the flag `u`; `undefined` for a valid one. */
export function regexProblem(source: string): string | undefined {
  try {
    new RegExp(source, 'u')
    return undefined
  } catch (error) {
    return error instanceof Error ? error.message : String(error)
  }
}

/** Whether `text` is an IP address, a CIDR range, or the name of one, as the package `proxy-addr` reads them. */
export function isAddressRange(text: string): boolean {
  try {
    proxyAddr.compile(text)
    return true
  } catch {
    return false
  }
}

/** An origin that no list names, and the opaque origin (RFC 6454 §4). */
const [unlisted, opaque] = ['https://not-listed.invalid', 'null']

/** Whether an entry of `origins` allows only certain sites. */
export function namesSites(entry: string): boolean {
  if (entry === '*' || entry === opaque) return false
  const pattern = expressionOf(entry)
  return pattern === undefined || ![unlisted, opaque].some(origin => new RegExp(pattern, 'u').test(origin))
}
