/** The messages on a topic filter as they come, over the gateway's own event stream (`/v1/events`). The rules of the user apply. */

import { byId } from './dom.js'
import { wireLog } from './message-log.js'
import { MessageStore } from './message-store.js'
import { connect } from './mqway.js'
import { messageOf } from './push-message.js'
import { objectionToFilter } from './topic-filter.js'

export class Tail {
  #ticket
  #store = new MessageStore()
  #draw = wireLog(this.#store)
  #filter = byId('tail-filter', HTMLInputElement)
  #toggle = byId('tail-toggle', HTMLButtonElement)
  #state = byId('tail-state', HTMLElement)
  #objection = byId('tail-objection', HTMLElement)
  /** @type {import('./mqway.js').Client | undefined} */
  #client

  /** @param {() => (() => Promise<string>) | undefined} ticket */
  constructor(ticket) {
    this.#ticket = ticket
    byId('tail-form', HTMLFormElement).addEventListener('submit', event => {
      event.preventDefault()
      if (this.#client) this.stop()
      else this.watch(this.#filter.value)
    })
    this.#filter.addEventListener('input', () => {
      if (this.#client) this.stop()
    })
  }

  /** @param {string} filter */
  watch(filter) {
    this.stop()
    this.#filter.value = filter
    const objection = objectionToFilter(filter)
    this.#objection.textContent = objection ?? ''
    if (objection !== undefined) return
    const ticket = this.#ticket()
    this.#client = connect({
      topics: [filter],
      transports: ['sse'],
      ...(ticket && { ticket }),
      onEvent: event => {
        this.#store.add(messageOf(event))
        this.#draw()
      },
      onGap: () => this.#say('Some messages are missing here.'),
      onState: (state, client) => {
        if (client === this.#client) this.#became(state)
      },
    })
    this.#toggle.textContent = 'Stop'
    this.#say('Connecting …')
  }

  stop() {
    const client = this.#client
    this.#client = undefined
    client?.close()
    this.#toggle.textContent = 'Watch'
    this.#say('')
  }

  /** @param {import('./mqway.js').ClientState} state */
  #became(state) {
    if (state.phase === 'open') this.#say('Watching')
    else if (state.phase === 'waiting') this.#say('Connection lost, tries again')
    else if (state.phase === 'closed') {
      this.stop()
      this.#objection.textContent = state.error?.message ?? ''
    }
  }

  /** @param {string} sentence */
  #say(sentence) {
    this.#state.textContent = sentence
  }
}
