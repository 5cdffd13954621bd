/*
 * The cases of mosquitto's packet corpus (`test/broker/data` in its repository) for MQTT 3.1 and 3.1.1: what is sent, what comes back, and
 * whether the broker ends the connection. It has the cases of all its versions since 2.0. A packet is written as there: hex bytes, `r` a
 * remaining length, `s` the length of a text, `m` a packet identifier, `k` a keep-alive, 'text'.
 */

/** Packets in turn, and the end. */
export interface Course {
  /** What is sent, each with what comes back for it; `''` for nothing. A step `publish 1` is a message of another client, of QoS 1. */
  readonly exchange: readonly Step[]
  /** Whether the broker ends the connection then. If not, it answers a PINGREQ. */
  readonly ends: boolean
}

type Step = readonly [sent: string, answer: string]

/** One case, and what mosquitto does. */
export interface PacketCase extends Course {
  readonly name: string
  /** Protocol level of the CONNECT that comes before, with a clean session; none where the case begins the connection. */
  readonly level?: 3 | 4
  /** What this broker does, where it does something else, and why. */
  readonly differs?: Course & { readonly why: string }
}

const end = (name: string, ...sent: string[]): PacketCase => ({
  name,
  level: 4,
  exchange: sent.map(each => [each, '']),
  ends: true,
})
const stay = (name: string, ...exchange: Step[]): PacketCase => ({ name, level: 4, exchange, ends: false })
const thenEnd = (name: string, ...exchange: Step[]): PacketCase => ({ name, level: 4, exchange, ends: true })

/** Begins the connection. */
const first = ({ level: _level, ...each }: PacketCase): PacketCase => each
const beforeConnect = (packet: string): PacketCase =>
  first(end(`${packet.slice(0, 2)} before CONNECT [MQTT-3.1.0-1]`, packet))
const fiveByteLength = (byte: string): PacketCase => end(`${byte} with a length of five bytes`, `${byte} r268435456`)
const firstBytes = (bytes: string, body: string): PacketCase[] =>
  bytes.split(' ').map(byte => end(`first byte ${byte}`, `${byte} ${body}`))

/** Texts of five bytes that MQTT or mosquitto forbids. */
const forbiddenTexts = {
  'U+0000': '746F700000',
  'U+D800': '746FEDA080',
  'U+0001': '746F700170',
  'U+001F': '746F701F70',
  'U+007F': '746F707F70',
  'U+009F': '746FC29F70',
  'U+DFFF': '746FEDBFBF',
}
const forbidden = (what: string, packet: (text: string) => string): PacketCase[] =>
  Object.entries(forbiddenTexts).map(([name, text]) => end(`${what} with ${name}`, packet(`s5 ${text}`)))

const auth: PacketCase[] = [
  beforeConnect('F0 r0'),
  end('F0 long', 'F0 r1 00'),
  ...firstBytes('F1 F2 F4 F8', 'r0'),
  fiveByteLength('F0'),
]

const connack: PacketCase[] = [
  beforeConnect('20 r2 00 00'),
  fiveByteLength('20'),
  end('20 long', '20 r3 00 00 00'),
  end('20 of one byte', '20 r1 00'),
  end('20 empty', '20 r0'),
  ...firstBytes('20 21 22 24 28', 'r2 00 00'),
  { ...end('29 to a client of MQTT 3.1 (mosquitto 2163)', '29 r2 00 01'), level: 3 },
  end('29 (mosquitto 2163)', '29 r2 00 01'),
  ...['01', '02', '04', '08', '10', '20', '40', '80'].map(flags => end(`20 with flags ${flags}`, `20 r2 ${flags} 00`)),
]

const accepted = '20 r2 00 00'
const rejected = '20 r2 00 02'

/** A CONNECT of a level that there is not. */
const unknownLevel = (level: string, packet: string): PacketCase => ({
  ...thenEnd(`level ${level} [MQTT-3.1.2-2]`, [packet, '20 r3 00 84 00']),
  differs: {
    why: 'mosquitto answers in the form of MQTT 5, which clients of other levels cannot read; MQTT 3.1.1 says return code 1, as mosquitto 2.0.11 does.',
    exchange: [[packet, '20 r2 00 01']],
    ends: true,
  },
})

const connect31: PacketCase[] = [
  stay('minimal', ["10 r15 s6 'MQIsdp' 03 01 k10 s1 'p'", accepted]),
  // The client has a session from the case before. The byte that says so in MQTT 3.1.1 is reserved in 3.1.
  stay('first byte 14', ["14 r15 s6 'MQIsdp' 03 01 k10 s1 'p'", accepted]),
  unknownLevel('2', "10 r15 s6 'MQIsdp' 02 00 k10 s1 'p'"),
  unknownLevel('6', "10 r15 s6 'MQIsdp' 06 00 k10 s1 'p'"),
  thenEnd('empty client id', ["10 r14 s6 'MQIsdp' 03 02 k10 0000", rejected]),
  stay('clean', ["10 r15 s6 'MQIsdp' 03 02 k10 s1 'p'", accepted]),
  end('a length of five bytes', "10 r268435456 s6 'MQIsdp' 03 02 k10 s1 'p'"),
]

const minimal = "10 r13 s4 'MQTT' 04 02 k10 s1 'p'"
const connect311: PacketCase[] = [
  stay('minimal', [minimal, accepted]),
  thenEnd('twice [MQTT-3.1.0-2]', [minimal, accepted], [minimal, '']),
  end('no client id', "10 r10 s4 'MQTT' 04 02 k10"),
  stay('empty client id', ["10 r12 s4 'MQTT' 04 02 k10 0000", accepted]),
  thenEnd('empty client id, not clean [MQTT-3.1.3-7]', ["10 r12 s4 'MQTT' 04 00 k10 0000", rejected]),
  unknownLevel('2', "10 r13 s4 'MQTT' 02 00 k10 s1 'p'"),
  unknownLevel('6', "10 r13 s4 'MQTT' 06 00 k10 s1 'p'"),
  end('a length of five bytes', "10 r268435456 s4 'MQTT' 05 02 k10 s1 'p'"),
  end('a length of five bytes, the largest', "10 FFFFFFFF7F s4 'MQTT' 06 00 k10 s1 'p'"),
  ...firstBytes('11 12 14 18', "r13 s4 'MQTT' 04 02 k10 s1 'p'"),
  end('protocol name short', "10 r12 s3 'MQT' 04 02 k10 s1 'p'"),
  end('protocol name empty', "10 r9 s0 04 02 k10 s1 'p'"),
  end('protocol name long', "10 r14 s5 'MQTTT' 04 02 k10 s1 'p'"),
  end('protocol name unknown [MQTT-3.1.2-1]', "10 r13 s4 'MQTU' 04 02 k10 s1 'p'"),
  end('reserved flag [MQTT-3.1.2-3]', "10 r13 s4 'MQTT' 04 01 k10 s1 'p'"),
  end('QoS of no will [MQTT-3.1.2-11]', "10 r13 s4 'MQTT' 04 0A k10 s1 'p'"),
  end('RETAIN of no will [MQTT-3.1.2-11]', "10 r13 s4 'MQTT' 04 12 k10 s1 'p'"),
  end('will without topic and message [MQTT-3.1.2-9]', "10 r13 s4 'MQTT' 04 06 k10 s1 'p'"),
  end('will without topic [MQTT-3.1.2-9]', "10 r16 s4 'MQTT' 04 06 k10 s1 'p' s1 'p'"),
  stay('will', ["10 r19 s4 'MQTT' 04 06 k10 s1 'p' s1 'p' s1 'p'", accepted]),
  end('will of QoS 3 [MQTT-3.1.2-14]', "10 r19 s4 'MQTT' 04 1E k10 s1 'p' s1 'p' s1 'p'"),
  ...forbidden('will topic', text => `10 r23 s4 'MQTT' 04 06 k10 s1 'p' ${text} s1 'p'`),
  ...forbidden('client id', text => `10 r17 s4 'MQTT' 04 02 k10 ${text}`),
  end('user name without flag [MQTT-3.1.2-18]', "10 r16 s4 'MQTT' 04 02 k10 s1 'p' s1 'p'"),
  end('no user name for the flag [MQTT-3.1.2-19]', "10 r13 s4 'MQTT' 04 82 k10 s1 'p'"),
  ...forbidden('user name', text => `10 r20 s4 'MQTT' 04 82 k10 s1 'p' ${text}`),
  stay('user name empty', ["10 r15 s4 'MQTT' 04 82 k10 s1 'p' s0", accepted]),
  stay('user name and password', ["10 r19 s4 'MQTT' 04 C2 k10 s1 'p' s1 'p' s1 'p'", accepted]),
  end('password without flag [MQTT-3.1.2-20]', "10 r19 s4 'MQTT' 04 82 k10 s1 'p' s1 'p' s1 'p'"),
  end('no password for the flag [MQTT-3.1.2-21]', "10 r16 s4 'MQTT' 04 C2 k10 s1 'p' s1 'p'"),
  end('password without user name [MQTT-3.1.2-22]', "10 r16 s4 'MQTT' 04 42 k10 s1 'p' s1 'p'"),
  stay('password with U+0000', ["10 r23 s4 'MQTT' 04 C2 k10 s1 'p' s1 'p' s5 746F700000", accepted]),
  end('fields behind the packet', "10 r7 s4 'MQTT' 04 C2 k60 s11 'test-python' s5 'admin' s8 'password'"),
]

/** Packets without a body. */
const bare = (type: string): PacketCase[] => [
  beforeConnect(`${type}0 r0`),
  fiveByteLength(`${type}0`),
  end(`${type}0 long`, `${type}0 r1 00`),
  ...firstBytes(['1', '2', '4', '8'].map(flags => type + flags).join(' '), 'r0'),
]

const [subscribeP1, subscribeP2]: readonly [Step, Step] = [
  ["82 r6 m1234 s1 'p' 01", '90 r3 m1234 01'],
  ["82 r6 m1234 s1 'p' 02", '90 r3 m1234 02'],
]
const message1: Step = ['publish 1', "32 r12 s1 'p' m1 'message'"]
const message2: Step = ['publish 2', "34 r12 s1 'p' m1 'message'"]
const [puback, pubrec, pubcomp] = ['40 r2 m1', '50 r2 m1', '70 r2 m1']
const released: Step = [pubrec, '62 r2 m1']
const flow: PacketCase[] = [
  stay('QoS 0 to itself', subscribeP1, ["30 r10 s1 'p' 'message'", "30 r10 s1 'p' 'message'"]),
  stay('QoS 1', subscribeP1, message1, [puback, '']),
  thenEnd('QoS 1, PUBREC', subscribeP1, message1, [pubrec, '']),
  thenEnd('QoS 1, PUBCOMP', subscribeP1, message1, [pubcomp, '']),
  stay('QoS 2', subscribeP2, message2, released, [pubcomp, '']),
  thenEnd('QoS 2, PUBACK', subscribeP2, message2, [puback, '']),
  thenEnd('QoS 2, PUBCOMP', subscribeP2, message2, [pubcomp, '']),
  thenEnd('QoS 2, PUBREC, PUBACK', subscribeP2, message2, released, [puback, '']),
  stay('QoS 2, PUBREC twice', subscribeP2, message2, released, released),
]

const noType: PacketCase[] = [
  ...['00', '01', '02', '04', '08'].map(byte => beforeConnect(`${byte} r0`)),
  fiveByteLength('00'),
  end('00 long', '00 r1 00'),
  ...firstBytes('00 01 02 04 08', 'r0'),
]

/** An acknowledgement: its type, its flags and wrong ones, and what one gets for an identifier that no message has. */
const acknowledgement = (type: string, right: string, wrong: string, answer: string): PacketCase[] => [
  beforeConnect(`${type}${right} r2 m1`),
  fiveByteLength(`${type}${right}`),
  stay('of no message', [`${type}${right} r2 m1`, answer]),
  end('long', `${type}${right} r3 m1 00`),
  end('identifier 0', `${type}${right} r2 m0`),
  end('empty', `${type}${right} r0`),
  end('of one byte', `${type}${right} r1 01`),
  ...firstBytes(wrong, 'r2 m1'),
]

const topic = "s5 'topic'"
const twice = "34 r16 s5 'topic' m1234 'payload'"
const publish: PacketCase[] = [
  beforeConnect(`30 r14 ${topic} 'payload'`),
  fiveByteLength('30'),
  stay('QoS 0', [`30 r14 ${topic} 'payload'`, '']),
  stay('retained', [`31 r14 ${topic} 'payload'`, '']),
  stay('retained, empty', [`31 r7 ${topic}`, '']),
  end('topic empty', "30 r9 s0 'payload'"),
  end('QoS 0 with DUP', `38 r14 ${topic} 'payload'`),
  end('QoS 3 without identifier [MQTT-3.3.1-4]', `36 r14 ${topic} 'payload'`),
  end('QoS 3 [MQTT-3.3.1-4]', `36 r16 ${topic} m1234 'payload'`),
  end('QoS 1 without identifier', `32 r7 ${topic}`),
  end('QoS 1, identifier 0', `32 r16 ${topic} m0 'payload'`),
  end('QoS 2, identifier 0', `34 r16 ${topic} m0 'payload'`),
  stay('QoS 1', [`32 r16 ${topic} m1234 'payload'`, '40 r2 m1234']),
  stay('QoS 1 with DUP', [`3A r16 ${topic} m1234 'payload'`, '40 r2 m1234']),
  stay('QoS 2', [twice, '50 r2 m1234'], ['62 r2 m1234', '70 r2 m1234']),
  stay('QoS 2 with DUP', [`3C r16 ${topic} m1234 'payload'`, '50 r2 m1234'], ['62 r2 m1234', '70 r2 m1234']),
  {
    ...thenEnd('QoS 2 three times', [twice, '50 r2 m1234'], [twice, '50 r2 m1234'], [twice, '']),
    differs: {
      why: 'mosquitto allows one repetition; by [MQTT-4.3.3-2] each one before PUBREL is acknowledged.',
      exchange: [1, 2, 3].map((): Step => [twice, '50 r2 m1234']),
      ends: false,
    },
  },
  ...forbidden('topic', text => `30 r14 ${text} 'payload'`),
  stay('topic with U+2A6D4', ["30 r14 s5 41F0AA9B94 'payload'", '']),
  end('topic with + [MQTT-3.3.2-2]', "30 r14 s5 '+opic' 'payload'"),
  end('topic with # [MQTT-3.3.2-2]', "30 r14 s5 '#opic' 'payload'"),
  stay(
    'QoS 2 three times, with and without payload',
    [`34 r9 ${topic} m1234`, '50 r2 m1234'],
    [`34 r10 ${topic} m1234 'p'`, '50 r2 m1234'],
    [`34 r9 ${topic} m1234`, '50 r2 m1234'],
  ),
  stay('topic with $', ["34 r14 s10 '$test/test' m123", '50 r2 m123']),
]

const sharedGranted: Step = ["82 r26 m1 s21 '$share/sharename/test' 01", '90 r3 m1 01']
const besideShared: readonly Step[] = [
  ["82 r9 m2 s4 'test' 00", '90 r3 m2 00'],
  ["A2 r8 m7 s4 'test'", 'B0 r2 m7'],
]
const regressions: PacketCase[] = [
  stay(
    'one filter of three unsubscribed (mosquitto 2885)',
    ["82 r38 m1234 s9 'drash/1/#' 00 s9 'erash/2/#' 00 s9 'crash/3/#' 00", '90 r5 m1234 00 00 00'],
    ["A2 r13 m1234 s9 'drash/1/#'", 'B0 r2 m1234'],
  ),
  stay('one of the others subscribed again', ["82 r14 m1234 s9 'crash/3/#' 00", '90 r3 m1234 00']),
  stay('a shared filter and the same filter', sharedGranted, ...besideShared),
  stay('a message for both', ["30 r13 s4 'test' 'payload'", '']),
  stay('a shared filter and the same filter, again', sharedGranted, ...besideShared),
]

const suback: PacketCase[] = [
  beforeConnect('90 r3 m1 00'),
  fiveByteLength('90'),
  end('identifier 0', '90 r3 m0 00'),
  end('empty', '90 r0'),
  end('of one byte', '90 r1 01'),
  end('of two bytes', '90 r2 m1'),
  ...firstBytes('90 91 92 94 98', 'r3 m1 00'),
]

const filter = "m1234 s1 'p'"
const subscribe: PacketCase[] = [
  beforeConnect(`82 r6 ${filter} 00`),
  fiveByteLength('82'),
  ...firstBytes('80 83 84 86 8A', `r6 ${filter} 00`),
  ...['03', '04', '08', '10', '20', '40', '80'].map(qos => end(`QoS ${qos} [MQTT-3.8.3-4]`, `82 r6 ${filter} ${qos}`)),
  ...forbidden('filter', text => `82 r10 m1234 ${text} 00`),
  end('long', `82 r7 ${filter} 00 00`),
  end('no QoS [MQTT-3.8.3-3]', `82 r5 ${filter}`),
  end('filter empty, no QoS', '82 r4 m1234 0000'),
  end('half a length', '82 r3 m1234 00'),
  end('no filter', '82 r2 1234'),
  end('of one byte', '82 r1 12'),
  end('empty', '82 r0'),
  end('filter empty', '82 r5 m1234 s0 00'),
  end('first filter empty', "82 r9 m1234 s0 00 s1 'q' 00"),
  end('last filter empty', "82 r9 m1234 s1 'q' 00 s0 00"),
  end('both filters empty', '82 r8 m1234 s0 00 s0 00'),
  end('identifier 0', "82 r6 m0 s1 'p' 00"),
  ...['00', '01', '02'].map(qos => stay(`QoS ${qos} [MQTT-3.8.4-1]`, [`82 r6 ${filter} ${qos}`, `90 r3 m1234 ${qos}`])),
  stay('two filters [MQTT-3.8.4-4]', [`82 r10 ${filter} 00 s1 'q' 00`, '90 r4 m1234 00 00']),
]

const unsuback: PacketCase[] = [
  beforeConnect('B0 r2 m1'),
  fiveByteLength('B0'),
  end('long', 'B0 r3 m1 00'),
  end('empty', 'B0 r0'),
  end('of one byte', 'B0 r1 01'),
  ...firstBytes('B0 B1 B2 B4 B8', 'r2 m1'),
]

const unsubscribed: Step = [`A2 r5 ${filter}`, 'B0 r2 m1234']
const unsubscribe: PacketCase[] = [
  beforeConnect(`A2 r5 ${filter}`),
  fiveByteLength('A2'),
  stay('of a filter that it has not [MQTT-3.10.4-5]', unsubscribed),
  stay('of one that it has', [`82 r6 ${filter} 00`, '90 r3 m1234 00'], unsubscribed),
  stay('two filters [MQTT-3.10.4-6]', [`A2 r8 ${filter} s1 'q'`, 'B0 r2 m1234']),
  end('first filter empty', "A2 r7 m1234 s0 s1 'q'"),
  end('last filter empty', "A2 r7 m1234 s1 'q' s0"),
  end('filter cut short', 'A2 r4 m1234 0001'),
  end('half a length', 'A2 r3 m1234 01'),
  end('no filter [MQTT-3.10.3-2]', 'A2 r2 m1234'),
  end('of one byte', 'A2 r1 12'),
  end('empty', 'A2 r0'),
  ...firstBytes('A0 A3 A4 A6 AA', `r5 ${filter}`),
  ...forbidden('filter', text => `A2 r9 m1234 ${text}`),
  end('identifier 0', "A2 r8 0000 s1 'p' s1 'q'"),
]

/** The corpus by its groups, in the order in which mosquitto runs them on one broker. */
export const corpus: Readonly<Record<string, readonly PacketCase[]>> = {
  AUTH: auth,
  CONNACK: connack,
  'CONNECT of MQTT 3.1': connect31.map(first),
  CONNECT: connect311.map(first),
  'CONNECT after CONNECT': [end('minimal', minimal)],
  DISCONNECT: [...bare('E'), end('as it is', 'E0 r0')],
  FLOW: flow,
  FORBIDDEN: noType,
  PINGREQ: [...bare('C'), stay('as it is', ['C0 r0', 'D0 r0'])],
  PINGRESP: [...bare('D'), end('as it is', 'D0 r0')],
  PUBACK: acknowledgement('4', '0', '41 42 44 48', ''),
  PUBCOMP: acknowledgement('7', '0', '71 72 74 78', ''),
  PUBLISH: publish,
  // It has the identifier of a message to the client; a PUBREL is right, as the client keeps the message.
  PUBREC: acknowledgement('5', '0', '51 52 54 58', '62 r2 m1'),
  PUBREL: acknowledgement('6', '2', '63 64 66 6A', '70 r2 m1'),
  REGRESSIONS: regressions,
  SUBACK: suback,
  SUBSCRIBE: subscribe,
  UNSUBACK: unsuback,
  UNSUBSCRIBE: unsubscribe,
}

/** Neighbours of those cases. */
export const neighbours: readonly PacketCase[] = [
  ...firstBytes('43 46 4A 53 56 5A 60 61 68 73 76 7A', 'r2 m1'),
  end('UNSUBSCRIBE, long', `A2 r6 ${filter} 00`),
  end('UNSUBSCRIBE, filter empty', 'A2 r4 m1234 s0'),
  end('UNSUBSCRIBE, both filters empty', 'A2 r6 m1234 s0 s0'),
  thenEnd('QoS 2, PUBREC twice, PUBACK', subscribeP2, message2, released, released, [puback, '']),
  stay('QoS 2, PUBREC twice, PUBCOMP twice', subscribeP2, message2, released, released, [pubcomp, ''], [pubcomp, '']),
  stay('QoS 1, PUBACK twice, PUBREC', subscribeP1, message1, [puback, ''], [puback, ''], released),
]

/** The bytes of a packet as it is written here. */
export function bytesOf(written: string): Buffer {
  const parts = written.match(/'[^']*'|\S+/g) ?? []
  return Buffer.concat(parts.map(partOf))
}

function partOf(part: string): Buffer {
  const number = Number(part.slice(1))
  switch (part[0]) {
    case "'":
      return Buffer.from(part.slice(1, -1))
    case 'r':
      return lengthOf(number)
    case 's':
    case 'm':
    case 'k':
      return Buffer.from([number >> 8, number & 0xff])
    default:
      return Buffer.from(part, 'hex')
  }
}

function lengthOf(size: number): Buffer {
  const bytes: number[] = []
  let rest = size
  do {
    bytes.push((rest % 128) | (rest >= 128 ? 0x80 : 0))
    rest = Math.floor(rest / 128)
  } while (rest > 0)
  return Buffer.from(bytes)
}
