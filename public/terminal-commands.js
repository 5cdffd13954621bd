/**
 * Commands and programs for a terminal, equivalent to the page. Pure.
 *
 * @typedef {object} Place
 * @property {string} hostname
 * @property {string} url the ws:// or wss:// URL of the tunnel
 * @property {string} path its path
 * @property {string} topic
 * @property {string} payload
 * @property {string} filter
 *
 * @typedef {{ label: string, code: string }} Snippet
 * @typedef {{ name: string, snippets: Snippet[] }} Program
 */

/**
 * @param {Place} place
 * @returns {Program[]}
 */
export function terminalPrograms(place) {
  return [
    { name: 'mosquitto', snippets: mosquitto(place) },
    { name: 'Python', snippets: python(place) },
    { name: 'Node.js', snippets: node(place) },
  ]
}

/**
 * @param {Place} place
 * @returns {string}
 */
export function publishCommand({ hostname, topic, payload }) {
  return `mosquitto_pub${hostOption(hostname)} -t ${shellQuote(topic)} -m ${shellQuote(payload)}`
}

/**
 * @param {Place} place
 * @returns {Snippet[]}
 */
function mosquitto(place) {
  return [
    { label: 'Publish', code: publishCommand(place) },
    { label: 'Subscribe', code: `mosquitto_sub${hostOption(place.hostname)} -v -t ${shellQuote(place.filter)}` },
  ]
}

/**
 * @param {Place} place
 * @returns {Snippet[]}
 */
function python({ hostname, url, path, filter }) {
  const { port, protocol } = new URL(url)
  const secure = protocol === 'wss:'
  const program = (/** @type {string[]} */ options) =>
    [
      '# pip install paho-mqtt',
      'from paho.mqtt import subscribe',
      '',
      'def on_message(client, userdata, message):',
      '    print(message.topic, message.qos, message.payload.decode())',
      '',
      `subscribe.callback(on_message, ${literal(filter)}, qos=1,`,
      `                   ${options.join(',\n                   ')})`,
    ].join('\n')
  const tcp = { label: 'Subscribe, over MQTT', code: program([`hostname=${literal(bare(hostname))}`, 'port=1883']) }
  // paho.mqtt.subscribe has a fixed path.
  if (path !== '/mqtt') return [tcp]
  const options = [
    `hostname=${literal(bare(hostname))}`,
    `port=${port || (secure ? 443 : 80)}`,
    'transport="websockets"',
  ]
  // tls={} uses the system's CAs; no CA has signed a development certificate.
  if (secure) options.push(isHere(hostname) ? 'tls={"ca_certs": "certs/localhost.crt"}' : 'tls={}')
  return [tcp, { label: `Subscribe, over ${secure ? 'wss' : 'ws'}`, code: program(options) }]
}

/**
 * @param {Place} place
 * @returns {Snippet[]}
 */
function node({ hostname, url, filter }) {
  const program = (/** @type {string} */ address, /** @type {string} */ options) =>
    [
      '// npm install mqtt',
      "import mqtt from 'mqtt'",
      '',
      `const client = mqtt.connect(${literal(address)}${options})`,
      `client.on('connect', () => client.subscribe(${literal(filter)}, { qos: 1 }))`,
      "client.on('message', (topic, payload, { qos }) => console.log(topic, qos, payload.toString()))",
    ].join('\n')
  const secure = url.startsWith('wss:')
  const trust = secure && isHere(hostname) ? ', { rejectUnauthorized: false /* a development certificate */ }' : ''
  return [
    { label: 'Subscribe, over MQTT', code: program(`mqtt://${hostname}:1883`, '') },
    { label: `Subscribe, over ${secure ? 'wss' : 'ws'}`, code: program(url, trust) },
  ]
}

/** @param {string} hostname */
function isHere(hostname) {
  return ['localhost', '127.0.0.1', '[::1]'].includes(hostname)
}

/**
 * The clients of mosquitto connect to this machine by default.
 *
 * @param {string} hostname
 */
export function hostOption(hostname) {
  return isHere(hostname) ? '' : ` -h ${shellQuote(bare(hostname))}`
}

/**
 * `location.hostname` has brackets around an IPv6 address; other programs need it without.
 *
 * @param {string} hostname
 */
function bare(hostname) {
  return hostname.replace(/^\[|\]$/g, '')
}

/**
 * Quotes a text for a POSIX shell: between single quotes, only a single quote is special.
 *
 * @param {string} text
 */
export function shellQuote(text) {
  if (/^\w[\w.:-]*$/.test(text)) return text
  return `'${text.replaceAll("'", "'\\''")}'`
}

/**
 * A string literal that is the same in JavaScript and in Python.
 *
 * @param {string} text
 */
function literal(text) {
  return JSON.stringify(text)
}
