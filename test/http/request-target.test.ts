import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { normalizePath, pathOf } from '../../src/http/request-target.js'

describe('the path of a request', () => {
  it.each([
    ['/%6dqtt', '/mqtt'],
    ['/%6Dqt%74?%6d=1', '/mqtt'],
    ['http://a.example/%6dqtt#x', '/mqtt'],
    ['/%30%39%41%5a%61%7A%2d%2E%5f%7e', '/09AZaz-._~'],
    // Reserved characters, and the percent sign, mean something else where they are encoded (RFC 3986 §2.2).
    ['/a%2fb%2F%3f%23%25%40%5b', '/a%2fb%2F%3f%23%25%40%5b'],
    ['/%256dqtt', '/%256dqtt'],
    ['/%25%36%64', '/%256d'],
    ['/%', '/%'],
    ['/%6', '/%6'],
    ['/%6g', '/%6g'],
    ['/%c3%bc%00', '/%c3%bc%00'],
    ['/%60%7b%7f%3a%40%2c%2f', '/%60%7b%7f%3a%40%2c%2f'],
  ])('%s is %s', (target, path) => {
    expect(pathOf(target)).toBe(path)
  })

  it('means the same, decoded as a whole', () => {
    fc.assert(
      fc.property(fc.webPath(), path => {
        expect(decodeURIComponent(normalizePath(path))).toBe(decodeURIComponent(path))
      }),
    )
  })
})
