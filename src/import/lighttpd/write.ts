import { Document, isMap, isScalar, stringify } from 'yaml'
import type { ConfigInput } from '../../config/schema.js'
import type { TunnelInput } from './drafts.js'
import type { Position } from './tokens.js'

/** A tunnel that is left out. */
export interface LeftOut {
  readonly input: TunnelInput
  readonly reason: string
  readonly at: Position
}

const everybodyComment =
  ' lighttpd let everybody in, and so does this. Behind a firewall or a login, keep it;\n else listen on 127.0.0.1.'
const hostsComment =
  ' lighttpd served every host name. With a list of yours, no page of another site reaches this through a name of its own.'
const subprotocolComment =
  ' Sent whatever the client offers, as lighttpd did. Without this line a client gets the one it offers.'

/** Formats the configuration as a file; everything left out is in comments, with the reason. */
export function write(
  config: ConfigInput,
  fileName: string,
  leftOut: readonly LeftOut[],
  directory: { readonly directory: string; readonly reason: string } | undefined,
): string {
  const document = new Document(config, { aliasDuplicateObjects: false })
  document.commentBefore =
    ` Made by mqway import from ${printable(fileName)}\n` +
    ' yaml-language-server: $schema=./node_modules/mqway/mqway.schema.json'
  comment(document.contents, 'anonymous', everybodyComment)
  comment(document.contents, 'hosts', hostsComment)
  comment(document.getIn(['tunnels', 0]), 'forceSubprotocol', subprotocolComment)
  if (directory)
    comment(
      document.contents,
      'public',
      ` Left out: ${printable(directory.reason)}\n public: ${printable(directory.directory)}`,
    )
  if (leftOut.length > 0) comment(document.contents, 'tunnels', leftOut.map(tunnelComment).join('\n'))
  return document.toString({ lineWidth: 0 })
}

function tunnelComment({ input, reason, at }: LeftOut): string {
  const lines = stringify([input], { lineWidth: 0 }).trimEnd().split('\n')
  return [
    ` Left out (${printable(at.file)}:${at.line}): ${printable(reason)}`,
    ...lines.map(line => `   ${printable(line)}`),
  ].join('\n')
}

function printable(text: string): string {
  return text.replaceAll(/[^\x20-\x7e]/g, '?')
}

function comment(map: unknown, key: string, text: string): void {
  const pair = isMap(map) ? map.items.find(item => isScalar(item.key) && item.key.value === key) : undefined
  if (isScalar(pair?.key)) pair.key.commentBefore = text
}
