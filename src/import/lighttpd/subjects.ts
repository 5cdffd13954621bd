import type { Test } from './conditions.js'

const urlSubject = '$HTTP["url"]'
const hostSubject = '$HTTP["host"]'
const addressSubject = '$HTTP["remoteip"]'

/** The tests of one subject. */
export function testsOf(subject: 'url' | 'host' | 'remoteip', tests: readonly Test[]): Test[] {
  return tests.filter(test => test.subject === `$HTTP["${subject}"]`)
}

/** The tests of anything but URL, host and address, which mqway does not look at. */
export function otherTests(tests: readonly Test[]): Test[] {
  return tests.filter(({ subject }) => ![urlSubject, hostSubject, addressSubject].includes(subject))
}

/** A test of the path. */
export function urlTest(operator: Test['operator'], value: string): Test {
  return { subject: urlSubject, operator, value }
}
