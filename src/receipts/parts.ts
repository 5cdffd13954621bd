/** The first of a list that are together no larger than `most`; one at least, where there is one. */
export function upTo<T>(list: readonly T[], most: number, sizeOf: (item: T) => number): T[] {
  let size = 0
  const end = list.findIndex((item, index) => {
    size += sizeOf(item)
    return size > most && index > 0
  })
  return list.slice(0, end === -1 ? list.length : end)
}

/** A time as others read it. */
export function iso(time: number): string {
  return new Date(time).toISOString()
}
