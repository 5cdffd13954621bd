/** Bytes of retained messages of the embedded broker on disk, and in memory, where they share a heap with everything else. */
const [onDisk, inMemory] = [256 * 1024 ** 2, 128 * 1024 ** 2]

/** The bound of retained messages of the embedded broker, in bytes: `mqtt.maxRetainedBytes`, or its default. */
export function retainedBytesOf({
  mqtt,
  data,
}: {
  readonly mqtt: { readonly maxRetainedBytes?: number | undefined }
  readonly data: string
}): number {
  return mqtt.maxRetainedBytes ?? (data === 'none' ? inMemory : onDisk)
}
