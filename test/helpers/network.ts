import { execFileSync } from 'node:child_process'
import { onTestFinished } from 'vitest'

/** A network of two hosts, this one and another one; needs root. */
export interface TestNetwork {
  /** The other host's address. */
  readonly address: string
  /** What runs a command on the other host: put it in front of the command. */
  readonly command: readonly string[]
  /**
   * Loses packets, in place of an earlier disturbance.
   *
   * @param share of the packets, from 0 to 1
   * @param direction packets to the other host, from it, or both
   */
  lose(share: number, direction?: 'to' | 'from' | 'both'): void
  /** Bounds the bits per second of packets to the other host; the rest waits. */
  slowDown(bitsPerSecond: number): void
}

let made = 0

/** Makes the other host, as a network namespace; removed after the test, which ends its programs before. */
export function makeNetwork(): TestNetwork {
  const number = made++
  const name = `mqway-${process.pid}-${number}`
  // At most 15 characters.
  const device = `mq${process.pid % 1_000_000}v${number}`
  const [, second = 0, third = 0] = [0, process.pid >> 8, process.pid].map(value => value & 0xff)
  const subnet = `10.${second}.${third}`
  const ip = (...args: string[]): void => void execFileSync('ip', args, { stdio: 'pipe' })
  ip('netns', 'add', name)
  onTestFinished(() => ip('netns', 'del', name))
  ip('link', 'add', device, 'type', 'veth', 'peer', 'name', 'eth0', 'netns', name)
  ip('address', 'add', `${subnet}.${4 * number + 1}/30`, 'dev', device)
  ip('link', 'set', device, 'up')
  const address = `${subnet}.${4 * number + 2}`
  ip('-n', name, 'address', 'add', `${address}/30`, 'dev', 'eth0')
  for (const each of ['eth0', 'lo']) ip('-n', name, 'link', 'set', each, 'up')
  const command = ['ip', 'netns', 'exec', name]
  return {
    ...{ address, command },
    lose: (share, direction = 'both') => {
      ip('netns', 'exec', name, 'iptables', '-F')
      for (const [side, chain] of [
        ['to', 'INPUT'],
        ['from', 'OUTPUT'],
      ]) {
        if (share === 0 || (direction !== 'both' && direction !== side)) continue
        const random = share === 1 ? [] : ['-m', 'statistic', '--mode', 'random', '--probability', String(share)]
        ip('netns', 'exec', name, 'iptables', '-A', String(chain), ...random, '-j', 'DROP')
      }
    },
    slowDown: bitsPerSecond => {
      const bucket = ['tbf', 'rate', `${bitsPerSecond}bit`, 'burst', '16kb', 'latency', '1s']
      execFileSync('tc', ['qdisc', 'replace', 'dev', device, 'root', ...bucket], { stdio: 'pipe' })
    },
  }
}
