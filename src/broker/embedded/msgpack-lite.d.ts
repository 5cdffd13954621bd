declare module 'msgpack-lite' {
  export function encode(value: unknown): Buffer
  /** Of a form that the caller knows, as it has encoded it. */
  export function decode<T>(data: Buffer): T
}
