import { connect } from '/vendor/mqway.js'

const show = (id, text) => {
  document.getElementById(id).textContent = text
}

/** The counts of one run of faults.js. */
let run = ''
let seen = new Set()
let highest = -1
let events = 0
let twice = 0
let gaps = 0

connect({
  topics: ['count/#'],
  onEvent: ({ topic, payload }) => {
    if (topic !== run) {
      run = topic
      seen = new Set()
      highest = -1
      twice = 0
    }
    const count = Number(payload)
    if (seen.has(count)) twice++
    seen.add(count)
    highest = Math.max(highest, count)
    show('events', ++events)
    show('last', count)
    show('twice', twice)
    show('lost', highest + 1 - seen.size)
  },
  onGap: () => show('gaps', ++gaps),
  onState: ({ phase, transport, reason }) => show('state', [phase, transport ?? reason].filter(Boolean).join(': ')),
})
