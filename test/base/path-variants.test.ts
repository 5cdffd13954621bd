import { expect, it } from 'vitest'
import { pathVariants } from '../../src/base/path-variants.js'

it.each([
  ['/mqtt', ['/mqtt']],
  ['//a', ['//a', '/a']],
  ['/b/../a', ['/b/../a', '/a']],
  ['/%61/%zz', ['/%61/%zz', '/a/%zz']],
  ['/b%2f..%2fa', ['/b%2f..%2fa', '/b/../a', '/a']],
  ['/caf%c3%a9', ['/caf%c3%a9', '/café']],
  ['/%61%ff', ['/%61%ff', '/a\u{fffd}']],
])('%s is compared as %j', (path, spellings) => {
  expect(pathVariants(path)).toEqual(spellings)
})
