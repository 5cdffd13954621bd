/*
 * The same in a page: subscriber.html?channel=CHANNEL_1&server=/pere
 */

const query = new URLSearchParams(location.search)
const channel = query.get('channel') ?? 'CHANNEL_1'
const server = (query.get('server') ?? '/pere').replace(/\/$/, '')
const path = encodeURIComponent(channel)

/** The same one each time that this browser comes. */
const device = localStorage.getItem('device') ?? `W0039${Math.floor(1e8 + Math.random() * 9e8)}`
localStorage.setItem('device', device)

/** As many are shown. */
const mostShown = 1000

const element = id => document.getElementById(id)
element('listen').textContent =
  `LISTEN (device: ${device}), channel: ${channel}, server: ${new URL(server, location.href).host}`

// An EventSource cannot set headers, so the device is in the query.
const source = new EventSource(`${server}/feed/${path}?device=${encodeURIComponent(device)}`)
source.addEventListener('open', () => {
  element('state').textContent = 'Connected'
})
source.addEventListener('error', () => {
  const isOver = source.readyState === EventSource.CLOSED
  element('state').textContent = isOver ? 'Refused: see the network view of the developer tools' : 'Connecting…'
})
source.addEventListener('message', async ({ data, lastEventId }) => {
  const line = document.createElement('li')
  line.textContent = `RX EVT> ${data}`
  element('events').append(line)
  while (element('events').childElementCount > mostShown) element('events').firstElementChild.remove()
  // What the page does with the event goes here.
  line.dataset.feedback = await feedback(lastEventId, 'rx ok').catch(() => 'failed')
})

/** @returns {Promise<string>} what became of it */
async function feedback(id, status) {
  const answer = await fetch(`${server}/feedback/${path}`, {
    method: 'POST',
    headers: { Device: device, 'Last-Event-Id': id },
    body: new URLSearchParams({ status }),
  })
  return answer.status === 200 ? 'sent' : 'refused'
}
