/*
 * Packets of MQTT 3.1 and 3.1.1 and what a broker does with them, as in mosquitto's own tests (test/broker/data). A packet is written as
 * there: hex bytes, `r` a remaining length, `s` the length of a text, `m` a packet identifier, `k` a keep-alive, 'text'.
 */

/** One case. A connection is opened before, where `connects` is not set. */
export interface PacketCase {
  readonly name: string
  readonly connects?: true
  /** What is sent, each with what comes back for it; `''` for nothing. */
  readonly exchange: readonly (readonly [sent: string, answer: string])[]
  /** Whether the broker ends the connection then. */
  readonly ends: boolean
}

const end = (name: string, ...sent: string[]): PacketCase => ({
  name,
  exchange: sent.map(each => [each, '']),
  ends: true,
})
const stay = (name: string, ...exchange: [string, string][]): PacketCase => ({ name, exchange, ends: false })
const answered = (name: string, ...exchange: [string, string][]): PacketCase => ({ name, exchange, ends: true })
const asFirst = (cases: readonly PacketCase[]): PacketCase[] =>
  cases.map(each => ({ ...each, name: `${each.name}, first`, connects: true }))

/** Texts of five bytes that must not be in a packet, and one that may. */
const texts = {
  '0x0000': '746F700000',
  'U+D800': '746FEDA080',
  'U+0001': '746F700170',
  'U+001F': '746F701F70',
  'U+007F': '746F707F70',
  'U+009F': '746FC29F70',
  'U+FFFF': '746FEDBFBF',
}
const forbidden = (what: string, packet: (text: string) => string): PacketCase[] =>
  Object.entries(texts).map(([name, text]) => end(`${what} with ${name}`, packet(`s5 ${text}`)))

const connect31: PacketCase[] = [
  stay('ok', ["10 r15 s6 'MQIsdp' 03 01 k10 s1 'p'", '20 r2 00 00']),
  // Of a client without a session: for one with a session, the byte that MQTT 3.1 reserves in CONNACK is 1 as in MQTT 3.1.1; 3.1 says nothing of it.
  stay('14 ok', ["14 r15 s6 'MQIsdp' 03 01 k10 s1 'q'", '20 r2 00 00']),
  // mosquitto answers in the form of MQTT 5, which a client of another level cannot read; MQTT 3.1.1 [MQTT-3.1.2-2] says return code 1.
  answered('level 2', ["10 r15 s6 'MQIsdp' 02 00 k10 s1 'p'", '20 r2 00 01']),
  answered('level 6', ["10 r15 s6 'MQIsdp' 06 00 k10 s1 'p'", '20 r2 00 01']),
  answered('empty client id', ["10 r14 s6 'MQIsdp' 03 02 k10 0000", '20 r2 00 02']),
  stay('clean', ["10 r15 s6 'MQIsdp' 03 02 k10 s1 'p'", '20 r2 00 00']),
  end('length of 5 bytes', "10 r268435456 s6 'MQIsdp' 03 02 k10 s1 'p'"),
]

const minimal = "10 r13 s4 'MQTT' 04 02 k10 s1 'p'"
const connect311: PacketCase[] = [
  stay('ok', [minimal, '20 r2 00 00']),
  answered('twice [MQTT-3.1.0-2]', [minimal, '20 r2 00 00'], [minimal, '']),
  end('no client id', "10 r10 s4 'MQTT' 04 02 k10"),
  stay('empty client id', ["10 r12 s4 'MQTT' 04 02 k10 0000", '20 r2 00 00']),
  answered('empty client id, not clean [MQTT-3.1.3-7]', ["10 r12 s4 'MQTT' 04 00 k10 0000", '20 r2 00 02']),
  // As above.
  answered('level 2 [MQTT-3.1.2-2]', ["10 r13 s4 'MQTT' 02 00 k10 s1 'p'", '20 r2 00 01']),
  answered('level 6 [MQTT-3.1.2-2]', ["10 r13 s4 'MQTT' 06 00 k10 s1 'p'", '20 r2 00 01']),
  end('length of 5 bytes', "10 r268435456 s4 'MQTT' 05 02 k10 s1 'p'"),
  ...['11', '12', '14', '18'].map(first => end(first, `${first} r13 s4 'MQTT' 04 02 k10 s1 'p'`)),
  end('short protocol', "10 r12 s3 'MQT' 04 02 k10 s1 'p'"),
  end('no protocol', "10 r9 s0 04 02 k10 s1 'p'"),
  end('long protocol', "10 r14 s5 'MQTTT' 04 02 k10 s1 'p'"),
  end('[MQTT-3.1.2-1]', "10 r13 s4 'MQTU' 04 02 k10 s1 'p'"),
  end('[MQTT-3.1.2-3]', "10 r13 s4 'MQTT' 04 01 k10 s1 'p'"),
  end('no will, its QoS 1 [MQTT-3.1.2-11]', "10 r13 s4 'MQTT' 04 0A k10 s1 'p'"),
  end('no will, retained [MQTT-3.1.2-11]', "10 r13 s4 'MQTT' 04 12 k10 s1 'p'"),
  end('will without topic and payload [MQTT-3.1.2-9]', "10 r13 s4 'MQTT' 04 06 k10 s1 'p'"),
  end('will without topic [MQTT-3.1.2-9]', "10 r16 s4 'MQTT' 04 06 k10 s1 'p' s1 'p'"),
  stay('will', ["10 r19 s4 'MQTT' 04 06 k10 s1 'p' s1 'p' s1 'p'", '20 r2 00 00']),
  end('will of QoS 3 [MQTT-3.1.2-14]', "10 r19 s4 'MQTT' 04 1E k10 s1 'p' s1 'p' s1 'p'"),
  ...forbidden('topic of the will', text => `10 r23 s4 'MQTT' 04 06 k10 s1 'p' ${text} s1 'p'`),
  ...forbidden('client id', text => `10 r17 s4 'MQTT' 04 02 k10 ${text}`),
  end('[MQTT-3.1.2-18]', "10 r16 s4 'MQTT' 04 02 k10 s1 'p' s1 'p'"),
  end('[MQTT-3.1.2-19]', "10 r13 s4 'MQTT' 04 82 k10 s1 'p'"),
  ...forbidden('user name', text => `10 r20 s4 'MQTT' 04 82 k10 s1 'p' ${text}`),
  stay('empty user name', ["10 r15 s4 'MQTT' 04 82 k10 s1 'p' s0", '20 r2 00 00']),
  stay('user name and password', ["10 r19 s4 'MQTT' 04 C2 k10 s1 'p' s1 'p' s1 'p'", '20 r2 00 00']),
  end('[MQTT-3.1.2-20]', "10 r19 s4 'MQTT' 04 82 k10 s1 'p' s1 'p' s1 'p'"),
  end('[MQTT-3.1.2-21]', "10 r16 s4 'MQTT' 04 C2 k10 s1 'p' s1 'p'"),
  end('[MQTT-3.1.2-22]', "10 r16 s4 'MQTT' 04 42 k10 s1 'p' s1 'p'"),
  stay('password with 0x0000', ["10 r23 00 04 'MQTT' 04 C2 k10 s1 'p' s1 'p' s5 746F700000", '20 r2 00 00']),
  end('fields longer than the packet', "10 r7 s4 'MQTT' 04 C2 k60 s11 'test-python' s5 'admin' s8 'password'"),
]

const topic = "s5 'topic'"
const two: [string, string][] = [
  [`34 r16 ${topic} m1234 'payload'`, '50 r2 m1234'],
  ['62 r2 m1234', '70 r2 m1234'],
]
const publish: PacketCase[] = [
  ...asFirst([end('[MQTT-3.1.0-1]', `30 r14 ${topic} 'payload'`)]),
  end('length of 5 bytes', '30 r268435456'),
  stay('QoS 0', [`30 r14 ${topic} 'payload'`, '']),
  stay('retained', [`31 r14 ${topic} 'payload'`, '']),
  stay('retained, empty', [`31 r7 ${topic}`, '']),
  end('empty topic', "30 r9 s0 'payload'"),
  end('QoS 0 with DUP', `38 r14 ${topic} 'payload'`),
  end('QoS 3 without identifier [MQTT-3.3.1-4]', `36 r14 ${topic} 'payload'`),
  end('QoS 3 [MQTT-3.3.1-4]', `36 r16 ${topic} m1234 'payload'`),
  end('QoS 1 without identifier', `32 r7 ${topic}`),
  end('QoS 1, identifier 0', `32 r16 ${topic} m0 'payload'`),
  end('QoS 2, identifier 0', `34 r16 ${topic} m0 'payload'`),
  stay('QoS 1', [`32 r16 ${topic} m1234 'payload'`, '40 r2 m1234']),
  stay('QoS 1 with DUP', [`3A r16 ${topic} m1234 'payload'`, '40 r2 m1234']),
  stay('QoS 2', ...two),
  stay('QoS 2 with DUP', [`3C r16 ${topic} m1234 'payload'`, '50 r2 m1234'], ['62 r2 m1234', '70 r2 m1234']),
  // mosquitto ends the connection at the third; by [MQTT-4.3.3-2] it is the same message once more.
  stay('QoS 2 three times', ...Array.from({ length: 3 }, () => two[0] ?? (['', ''] as [string, string]))),
  ...forbidden('topic', text => `30 r14 ${text} 'payload'`),
  stay('topic with U+2A6D4', ["30 r14 s5 41F0AA9B94 'payload'", '']),
  end('topic with + [MQTT-3.3.2-2]', "30 r14 s5 '+opic' 'payload'"),
  end('topic with # [MQTT-3.3.2-2]', "30 r14 s5 '#opic' 'payload'"),
  stay(
    'QoS 2 repeated with and without payload',
    [`34 r9 ${topic} m1234`, '50 r2 m1234'],
    [`34 r10 ${topic} m1234 'p'`, '50 r2 m1234'],
    [`34 r9 ${topic} m1234`, '50 r2 m1234'],
  ),
  stay('topic with $', ["34 r14 s10 '$test/test' m123", '50 r2 m123']),
]

const filter = "m1234 s1 'p'"
const subscribe: PacketCase[] = [
  ...asFirst([end('[MQTT-3.1.0-1]', `82 r6 ${filter} 00`)]),
  end('length of 5 bytes', '82 r268435456'),
  ...['80', '83', '84', '86', '8A'].map(first => end(`${first} [MQTT-3.8.1-1]`, `${first} r6 ${filter} 00`)),
  ...['03', '04', '08', '10', '20', '40', '80'].map(qos => end(`QoS ${qos} [MQTT-3.8.3-4]`, `82 r6 ${filter} ${qos}`)),
  ...forbidden('filter', text => `82 r10 m1234 ${text} 00`),
  end('long', `82 r7 ${filter} 00 00`),
  end('short 5 [MQTT-3.8.3-3]', `82 r5 ${filter}`),
  end('short 4', '82 r4 m1234 0000'),
  end('short 3', '82 r3 m1234 00'),
  end('short 2', '82 r2 1234'),
  end('short 1', '82 r1 12'),
  end('short 0', '82 r0'),
  end('empty filter', '82 r5 m1234 s0 00'),
  end('empty filter first', "82 r9 m1234 s0 00 s1 'q' 00"),
  end('empty filter last', "82 r9 m1234 s1 'q' 00 s0 00"),
  end('two empty filters', '82 r8 m1234 s0 00 s0 00'),
  end('identifier 0', "82 r6 m0 s1 'p' 00"),
  ...['00', '01', '02'].map(qos => stay(`QoS ${qos}`, [`82 r6 ${filter} ${qos}`, `90 r3 m1234 ${qos}`])),
  stay('two', [`82 r10 ${filter} 00 s1 'q' 00`, '90 r4 m1234 00 00']),
]

const unsubscribe: PacketCase[] = [
  ...asFirst([end('[MQTT-3.1.0-1]', `A2 r5 ${filter}`)]),
  end('length of 5 bytes', 'A2 r268435456'),
  ...['A0', 'A3', 'A4', 'A6', 'AA'].map(first => end(`${first} [MQTT-3.10.1-1]`, `${first} r5 ${filter}`)),
  ...forbidden('filter', text => `A2 r9 m1234 ${text}`),
  end('long', `A2 r6 ${filter} 00`),
  end('short 4', 'A2 r4 m1234 0001'),
  end('short 3', 'A2 r3 m1234 00'),
  end('short 2 [MQTT-3.10.3-2]', 'A2 r2 1234'),
  end('short 1', 'A2 r1 12'),
  end('short 0', 'A2 r0'),
  end('empty filter', 'A2 r4 m1234 s0'),
  end('empty filter first', "A2 r7 m1234 s0 s1 'q'"),
  end('empty filter last', "A2 r7 m1234 s1 'q' s0"),
  end('two empty filters', 'A2 r6 m1234 s0 s0'),
  end('identifier 0', "A2 r5 m0 s1 'p'"),
  stay('one', [`A2 r5 ${filter}`, 'B0 r2 m1234']),
  stay('two', [`A2 r8 ${filter} s1 'q'`, 'B0 r2 m1234']),
]

/** What holds for each acknowledgement: its first byte, which flags are wrong, and what an identifier that is not known gets. */
const acknowledgement = (name: string, type: string, right: string, answer: string): PacketCase[] => [
  ...asFirst([end(`${name} [MQTT-3.1.0-1]`, `${type}${right} r2 m1`)]),
  end(`${name}, length of 5 bytes`, `${type}${right} r268435456`),
  stay(`${name}, not known`, [`${type}${right} r2 m1`, answer]),
  end(`${name}, long`, `${type}${right} r3 m1 00`),
  end(`${name}, identifier 0`, `${type}${right} r2 m0`),
  end(`${name}, short 0`, `${type}${right} r0`),
  end(`${name}, short 1`, `${type}${right} r1 01`),
  ...['0', '1', '2', '3', '4', '6', '8', 'A']
    .filter(flags => flags !== right)
    .map(flags => end(`${name}, flags ${flags} [MQTT-2.2.2-2]`, `${type}${flags} r2 m1`)),
]

/** Packets that only a broker sends. */
const ofBrokers = (name: string, type: string, body: string): PacketCase[] => {
  const all = ['0', '1', '2', '4', '8'].map(flags => end(`${name}, flags ${flags}`, `${type}${flags} ${body}`))
  return [...asFirst(all.slice(0, 1)), end(`${name}, length of 5 bytes`, `${type}0 r268435456`), ...all]
}

/** Packets without a body. */
const bare = (name: string, type: string, answered: PacketCase): PacketCase[] => [
  ...asFirst([end(`${name} [MQTT-3.1.0-1]`, `${type}0 r0`)]),
  end(`${name}, length of 5 bytes`, `${type}0 r268435456`),
  end(`${name}, long`, `${type}0 r1 00`),
  ...['1', '2', '4', '8'].map(flags => end(`${name}, flags ${flags}`, `${type}${flags} r0`)),
  answered,
]

const unknown: PacketCase[] = [
  ...asFirst(['00', '01', '02', '04', '08'].map(first => end(first, `${first} r0`))),
  end('length of 5 bytes', '00 r268435456'),
  end('00 long', '00 r1 00'),
  ...['00', '01', '02', '04', '08', 'F0', 'F1'].map(first => end(first, `${first} r0`)),
]

/** All cases by the kind of packet. */
export const packetCases: Readonly<Record<string, readonly PacketCase[]>> = {
  'CONNECT of MQTT 3.1': connect31.map(each => ({ ...each, connects: true })),
  CONNECT: connect311.map(each => ({ ...each, connects: true })),
  'a second CONNECT': [end('ends the connection', minimal)],
  PUBLISH: publish,
  SUBSCRIBE: subscribe,
  UNSUBSCRIBE: unsubscribe,
  acknowledgements: [
    ...acknowledgement('PUBACK', '4', '0', ''),
    // It has the packet identifier of a message to the client; a PUBREL is right, as the client has kept the message.
    ...acknowledgement('PUBREC', '5', '0', '62 r2 m1'),
    ...acknowledgement('PUBREL', '6', '2', '70 r2 m1'),
    ...acknowledgement('PUBCOMP', '7', '0', ''),
  ],
  'packets that only brokers send': [
    ...ofBrokers('CONNACK', '2', 'r2 0000'),
    ...ofBrokers('SUBACK', '9', 'r3 m1 00'),
    ...ofBrokers('UNSUBACK', 'B', 'r2 m1'),
    ...ofBrokers('PINGRESP', 'D', 'r0'),
  ],
  'packets without a body': [
    ...bare('PINGREQ', 'C', stay('PINGREQ', ['C0 r0', 'D0 r0'])),
    ...bare('DISCONNECT', 'E', end('DISCONNECT', 'E0 r0')),
  ],
  'packets of no type': unknown,
}

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
