/** The page for long-polling. */

import { byId, copyable, element } from './dom.js'
import { draft } from './publish-view.js'
import { PushPage } from './push-page.js'
import { shellQuote } from './terminal-commands.js'

function renderCommands() {
  const { topic, payload } = draft()
  const { origin, protocol } = location
  // No CA has signed a development certificate.
  const curl = `curl${protocol === 'https:' && ['localhost', '127.0.0.1'].includes(location.hostname) ? ' -k' : ''}`
  const publish = `${curl} ${shellQuote(`${origin}/v1/publish?topic=${encodeURIComponent(topic)}`)} -d ${shellQuote(payload)}`
  const poll = `${curl} ${shellQuote(`${origin}/v1/poll?topic=${encodeURIComponent(topic)}`)}`
  byId('terminal-panel', HTMLElement).replaceChildren(
    element('div', 'snippet', element('h3', '', 'Publish'), copyable(publish, 'Publish')),
    element('div', 'snippet', element('h3', '', 'Wait for the next event'), copyable(poll, 'Poll')),
  )
  byId('first-command', HTMLElement).replaceChildren(copyable(publish, 'Publish'))
}

new PushPage({ transport: 'poll', path: '/v1/poll', topics: ['/news/+/sport'], onDraft: renderCommands })
renderCommands()
