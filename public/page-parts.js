/*
 * The shared parts of the pages, as custom elements: header, log and forms. Each element replaces itself with its
 * markup; its children replace the element with `data-children` in it. A classic script at the end of
 * each page, so that the parts exist when the page's own scripts run, and a page opened as a file can load it.
 */
;(() => {
  /**
   * @param {string} name
   * @param {(attribute: (name: string) => string) => string} markup
   */
  function define(name, markup) {
    customElements.define(
      name,
      class extends HTMLElement {
        connectedCallback() {
          const template = document.createElement('template')
          template.innerHTML = markup(attribute => escapeText(this.getAttribute(attribute) ?? ''))
          template.content.querySelector('[data-children]')?.replaceWith(...this.childNodes)
          this.replaceWith(template.content)
        }
      },
    )
  }

  /** @param {string} text */
  const escapeText = text => text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('"', '&quot;')

  /**
   * @param {string} current the current page
   * @param {[page: string, name: string][]} pages
   */
  const navigation = (current, pages) => `
    <nav class="pages" aria-label="Pages">
      ${pages.map(([page, name]) => `<a href="${page}"${page === current ? ' aria-current="page"' : ''}>${name}</a>`).join('\n')}
    </nav>`

  /** @param {string} name of the group of radio buttons */
  const qos = name => `
    <fieldset class="segments">
      <legend>QoS</legend>
      <label><input type="radio" name="${name}" value="0" /><span>0</span></label>
      <label><input type="radio" name="${name}" value="1" checked /><span>1</span></label>
      <label><input type="radio" name="${name}" value="2" /><span>2</span></label>
    </fieldset>`

  const topicInput = 'class="mono" dir="auto" spellcheck="false" autocapitalize="off" autocomplete="off"'

  /** The header of a page: `page` (its address), `text`, and `form`, which is `settings` or `login`; children: that form. */
  define(
    'page-header',
    attribute => `
      <header class="header" data-phase="connecting" id="header">
        <div class="header-inner">
          <div class="brand">
            <h1>mqway</h1>
            <p>${attribute('text')}</p>
          </div>
          ${navigation(attribute('page'), [
            ['/', 'MQTT'],
            ['/sse.html', 'Event stream'],
            ['/long-poll.html', 'Long-poll'],
            ['/socket.html', 'Socket'],
            ['/dashboard', 'Dashboard'],
          ])}
          <div class="route">
            <div class="stop">
              <span class="stop-dot"></span>
              <span class="stop-name">This page</span>
              <span class="stop-detail" id="client-id" dir="auto"></span>
            </div>
            <div class="track" aria-hidden="true">
              <span class="rail"></span>
              <span class="moving-message moving-message-in" id="moving-message-in"></span>
              <span class="moving-message moving-message-out" id="moving-message-out"></span>
              <span class="break">×</span>
            </div>
            <div class="stop stop-far">
              <span class="stop-dot"></span>
              <span class="stop-name" id="gateway-host"></span>
              <span class="stop-detail" id="gateway-path"></span>
            </div>
          </div>
          <div class="connection-state">
            <div class="connection-state-text">
              <p class="state" id="state" role="status" aria-live="polite">Connecting …</p>
              <p class="reason" id="reason" hidden><bdi id="reason-sentence"></bdi> <small id="reason-detail"></small></p>
              <p class="reason loss" id="loss" role="status" hidden></p>
            </div>
            <div class="connection-state-actions">
              <span class="countdown" id="countdown" hidden></span>
              <button type="button" class="primary" id="try-now" hidden>Try now</button>
              ${
                attribute('form') === 'settings'
                  ? '<button type="button" id="settings-toggle" aria-expanded="false" aria-controls="settings">Settings</button>'
                  : '<button type="button" id="login-toggle" aria-expanded="false" aria-controls="login" hidden>Log in</button>'
              }
            </div>
          </div>
          <div data-children></div>
        </div>
      </header>
      <p class="notice" id="notice" role="alert" hidden></p>`,
  )

  /** The form `login` of `page-header`. */
  define(
    'login-form',
    () => `
      <form class="settings" id="login" hidden>
        <label>User name <input id="login-user" autocapitalize="off" autocomplete="username" spellcheck="false" placeholder="empty for a token" /></label>
        <label>Password or token <input id="login-password" type="password" autocomplete="current-password" required aria-describedby="login-objection" /></label>
        <div class="settings-actions">
          <button type="submit" class="primary">Log in</button>
          <button type="button" id="log-out" hidden>Log out</button>
        </div>
        <p class="objection" id="login-objection" role="alert"></p>
      </form>`,
  )

  /** The panel that adds topics to the push connection; children: elements below the list. */
  define(
    'listen-panel',
    () => `
      <section class="panel subscribe" aria-labelledby="subscribe-title">
        <h2 id="subscribe-title">Listen</h2>
        <form id="subscribe-form" novalidate>
          <div class="inline">
            <label class="field">
              <span>Topic filter</span>
              <input id="filter" ${topicInput} value="/news/#" aria-describedby="filter-objection" />
            </label>
            <button type="submit" class="primary">Listen</button>
          </div>
          <p class="objection" id="filter-objection" role="alert"></p>
        </form>
        <ul class="subscriptions" id="topics" aria-label="Listening to"></ul>
        <div data-children></div>
      </section>`,
  )

  /** The log of messages; children: the text while it is empty. */
  define(
    'message-log',
    () => `
      <section class="panel log" id="log" aria-labelledby="log-title" tabindex="-1">
        <div class="log-head">
          <h2 id="log-title">Messages</h2>
          <p class="log-count" id="log-count">none yet</p>
          <div class="log-tools">
            <label class="search">
              <span class="visually-hidden">Show only messages with this text or filter</span>
              <input id="log-filter" type="search" dir="auto" placeholder="Filter: text or topic/#" spellcheck="false" autocapitalize="off" />
            </label>
            <button type="button" id="pause" aria-pressed="false">Pause</button>
            <button type="button" id="clear">Clear</button>
          </div>
        </div>
        <p class="visually-hidden" id="log-announcer" role="status" aria-live="polite"></p>
        <div class="log-window">
          <ol class="messages" id="messages" aria-label="Messages, newest first" tabindex="0"></ol>
          <div class="log-empty" id="log-empty">
            <p class="log-empty-title" id="log-empty-title">Quiet so far.</p>
            <div data-children></div>
          </div>
        </div>
      </section>`,
  )

  /** The panel that publishes; children: a row of further options. */
  define(
    'publish-panel',
    attribute => `
      <section class="panel publish" aria-labelledby="publish-title">
        <h2 id="publish-title">${attribute('heading')}</h2>
        <form id="publish-form" novalidate>
          <label class="field">
            <span>Topic</span>
            <input id="topic" ${topicInput} value="/news/europe/sport" aria-describedby="publish-objection" />
          </label>
          <label class="field">
            <span>Payload</span>
            <textarea id="payload" class="mono" dir="auto" rows="3" spellcheck="false">this is the message about european sports</textarea>
          </label>
          <div data-children></div>
          <div class="form-row">
            ${qos('publish-qos')}
            <label class="check"><input type="checkbox" id="retain" /> Retain</label>
            <button type="submit" class="primary" id="publish" aria-keyshortcuts="Control+Enter Meta+Enter">Publish</button>
          </div>
          <p class="objection" id="publish-objection" role="alert"></p>
          <div class="publish-foot">
            <p class="outcome" id="publish-outcome" role="status" aria-live="polite"><span class="keys-hint"><kbd>Ctrl</kbd> <kbd>Enter</kbd> also publishes.</span></p>
            <button type="button" class="quiet" id="clear-retained" title="Publishes an empty retained message, which removes the topic’s retained message">Clear retained</button>
          </div>
        </form>
      </section>`,
  )

  /** The header of a page for clients of another system: `page`, `text`; children: figures. */
  define(
    'compat-header',
    attribute => `
      <header class="header" data-phase="connecting" id="header">
        <div class="header-inner">
          <div class="brand">
            <h1>mqway</h1>
            <p>${attribute('text')}</p>
          </div>
          ${navigation(attribute('page'), [
            ['./', 'MQTT'],
            ['rrr-push.html', 'RRR'],
            ['couchdb.html', 'CouchDB'],
          ])}
          <dl class="figures">
            <div data-children></div>
            <div>
              <dt>Messages</dt>
              <dd id="count">0</dd>
            </div>
          </dl>
          <p class="state" id="state" role="status" dir="auto">Connecting …</p>
        </div>
      </header>`,
  )

  /** The form of such a page: `name`, `field` and `value` of its own input; children: a hint. */
  define(
    'compat-form',
    attribute => `
      <form class="card ask" id="form" novalidate>
        <label class="field">
          <span>Gateway</span>
          <input id="url" ${topicInput} />
        </label>
        <label class="field">
          <span>${attribute('name')}</span>
          <input id="${attribute('field')}" ${topicInput} value="${attribute('value')}" />
        </label>
        <div class="login" id="login" hidden>
          <label class="field">
            <span>User name</span>
            <input id="user" autocapitalize="off" autocomplete="username" spellcheck="false" placeholder="empty for a token" />
          </label>
          <label class="field">
            <span>Password or token</span>
            <input id="password" type="password" autocomplete="current-password" />
          </label>
        </div>
        <button type="submit" class="primary">Listen</button>
        <p class="hint"><span data-children></span></p>
      </form>
      <section class="card" aria-labelledby="messages-title">
        <h2 id="messages-title">Messages</h2>
        <p class="empty" id="empty">None yet.</p>
        <ol id="messages" aria-label="Messages, newest first"></ol>
      </section>`,
  )
})()
