import { isIP } from 'node:net'
import proxyAddr from 'proxy-addr'

/*
 * The forms of single values that are more than a regular expression: broker URLs, origins, address ranges.
 * Pure text in, a verdict out; what the verdict means is written at the option in schema.ts.
 */

/** Where a broker URL leads. */
export interface BrokerAddress {
  readonly protocol: 'mqtt' | 'mqtts' | 'unix'
  /** A name or an address without brackets; the file of a Unix socket. */
  readonly host: string
  /** 1883 (mqtt) or 8883 (mqtts) where the URL names none; 0 for a Unix socket. */
  readonly port: number
}

/**
 * Takes a broker URL apart: `mqtt://host:port`, `mqtts://host:port`, `unix:/path/to/socket`.
 *
 * @returns `undefined` for anything else, also for a URL with a path, a query or a password
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

/** Whether `text` is one of the forms of `origins`. */
/** Whether it is a host name or an address without a port, or `*.` and a host name. */
export function isHostName(text: string): boolean {
  if (text === '*' || isIP(text) !== 0) return true
  return /^(?:\*\.)?[^\s/\\?#@:*[\]]+$/.test(text) && URL.canParse(`http://${text.replace('*.', '')}`)
}

export function isOriginPattern(text: string): boolean {
  if (text === 'same-origin' || text === 'null' || text === '*') return true
  const expression = /^\/(.+)\/$/.exec(text)?.[1]
  if (expression !== undefined) return regexProblem(expression) === undefined
  const authority = originForm.exec(text)?.[1]
  return authority !== undefined && URL.canParse(`http://${authority}`)
}

/** The expression of a text `/…/`; `undefined` for any other text. */
export function expressionOf(text: string): string | undefined {
  return /^\/(.+)\/$/s.exec(text)?.[1]
}

/** Whether `text` is one of the forms of a tunnel's `hosts`. */
export function isHostPattern(text: string): boolean {
  const expression = expressionOf(text)
  if (expression !== undefined) return regexProblem(expression) === undefined
  return /^(?:\*\.)?(?:[\p{L}\p{N}_-][\p{L}\p{N}_.-]*|\[[0-9a-f:.]+\])$/iu.test(text)
}

/** Whether `text` is one of the forms of `deny`. */
export function isDeniedPath(text: string): boolean {
  const expression = expressionOf(text)
  return expression === undefined || regexProblem(expression) === undefined
}

/** What is wrong with a regular expression (compiled with the `u` flag, as mqway does everywhere), if anything is. */
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
