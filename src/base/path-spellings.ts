import { posix } from 'node:path'

/**
 * All forms in which a path may be compared: as it is, and decoded without `//`, `/./` and `/../`. Bytes that are no UTF-8 become U+FFFD, and a
 * percent sign without two digits stays, so that one wrong escape does not hide the others.
 */
export function spellingsOf(path: string): readonly string[] {
  if (!/%|\/[./]/.test(path)) return [path]
  const decoded = path.replaceAll(/(?:%[0-9a-f]{2})+/gi, codes =>
    Buffer.from(codes.replaceAll('%', ''), 'hex').toString(),
  )
  return [...new Set([path, decoded, posix.normalize(decoded)])]
}
