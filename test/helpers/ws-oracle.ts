import { createRequire } from 'node:module'
import { PassThrough, type Writable } from 'node:stream'

/** Parts of `ws` that its types leave out, as a reference for the frame codec. */
const ws: {
  Sender: { frame(data: Buffer, options: FrameOptions): Buffer[] }
  Receiver: new (options: { isServer: boolean; maxPayload: number }) => Writable
} = createRequire(import.meta.url)('ws')

interface FrameOptions {
  fin: boolean
  opcode: number
  rsv1: boolean
  mask: boolean
  readOnly: boolean
  generateMask?: (mask: Buffer) => void
}

/** One frame, valid or invalid. */
export interface TestFrame {
  readonly fin: boolean
  readonly opcode: number
  readonly payload: Buffer
  /** Four bytes. */
  readonly mask: Buffer
}

/** A client's frame, encoded by `ws`. */
export function encodeByOracle({ fin, opcode, payload, mask }: TestFrame): Buffer {
  const generateMask = (target: Buffer): void => void mask.copy(target)
  return Buffer.concat(ws.Sender.frame(payload, { fin, opcode, rsv1: false, mask: true, readOnly: true, generateMask }))
}

/** The result of `ws` for a byte stream. */
export interface OracleResult {
  readonly payload: Buffer
  readonly pings: Buffer[]
  readonly pongs: Buffer[]
  readonly closeCode: number | undefined
  readonly closeReason: string
  /** The close code of a violation found by `ws`. */
  readonly violation: number | undefined
}

/** Passes `bytes` to the Receiver of `ws`. `as` is the sender of the frames. */
export async function decodeByOracle(bytes: Buffer, as: 'client' | 'server'): Promise<OracleResult> {
  const receiver = new ws.Receiver({ isServer: as === 'client', maxPayload: 0 })
  const messages: Buffer[] = []
  const result = {
    pings: [] as Buffer[],
    pongs: [] as Buffer[],
    closeCode: undefined as number | undefined,
    closeReason: '',
    violation: undefined as number | undefined,
  }
  receiver.on('message', (data: Buffer) => messages.push(data))
  receiver.on('ping', (data: Buffer) => result.pings.push(data))
  receiver.on('pong', (data: Buffer) => result.pongs.push(data))
  receiver.on('conclude', (code: number, reason: Buffer) => {
    result.closeCode = code
    result.closeReason = reason.toString()
  })
  const source = new PassThrough()
  await new Promise<void>(resolve => {
    receiver.on('error', (error: Error & { [key: symbol]: unknown }) => {
      const status = Object.getOwnPropertySymbols(error).find(symbol => symbol.description === 'status-code')
      result.violation = status ? Number(error[status]) : 1006
      resolve()
    })
    receiver.on('finish', resolve)
    receiver.on('conclude', () => resolve())
    source.pipe(receiver)
    // A copy: the Receiver unmasks in place.
    source.end(Buffer.from(bytes))
  })
  return { payload: Buffer.concat(messages), ...result }
}
