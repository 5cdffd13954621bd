import { posix } from 'node:path'

/**
 * Returns the variants of a path for access checks: as it is, percent-decoded, and decoded without `//`, `/./` and `/../`. Invalid UTF-8
 * becomes U+FFFD, and an invalid escape stays, so that it does not hide others.
 */
export function pathVariants(path: string): readonly string[] {
  if (!/%|\/[./]/.test(path)) return [path]
  const decoded = path.replaceAll(/(?:%[0-9a-f]{2})+/gi, codes =>
    Buffer.from(codes.replaceAll('%', ''), 'hex').toString(),
  )
  return [...new Set([path, decoded, posix.normalize(decoded)])]
}
