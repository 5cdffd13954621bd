/**
 * Records the CloseEvents of WebSockets.
 *
 * Paho's error is only "AMQJS0008I Socket closed", without the close code and the reason. Paho looks up the global
 * `WebSocket` at each connect, so a subclass in its place receives the same CloseEvent and changes nothing.
 *
 * @typedef {object} SocketRecord
 * @property {WebSocket} socket
 * @property {boolean} opened whether the handshake succeeded
 * @property {Promise<CloseEvent>} closed
 */

/** Installs the recorder in the page. Returns a function that gives the record of the latest WebSocket. */
export function recordSockets() {
  /** @type {SocketRecord | undefined} */
  let latest

  class RecordedWebSocket extends window.WebSocket {
    /**
     * @param {string | URL} url
     * @param {string | string[]} [protocols]
     */
    constructor(url, protocols) {
      super(url, protocols)
      /** @type {SocketRecord} */
      const record = {
        socket: this,
        opened: false,
        closed: new Promise(resolve => this.addEventListener('close', resolve, { once: true })),
      }
      this.addEventListener('open', () => {
        record.opened = true
      })
      latest = record
    }
  }

  window.WebSocket = RecordedWebSocket
  return () => latest
}
