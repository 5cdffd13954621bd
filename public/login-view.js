/** The login form, and the button that opens it. */

import { byId, element } from './dom.js'
import { authorizationOf, requestTicket } from './login.js'

/** @typedef {import('./login.js').Credentials} Credentials */

export class LoginView {
  /** @type {Credentials | undefined} */
  #credentials
  /** The ticket that showed that the credentials are right: the first request takes it. @type {string | undefined} */
  #ticket
  #toggle = byId('login-toggle', HTMLButtonElement)
  #form = byId('login', HTMLFormElement)
  #userName = byId('login-user', HTMLInputElement)
  #password = byId('login-password', HTMLInputElement)
  #logOut = byId('log-out', HTMLButtonElement)
  #objection = byId('login-objection', HTMLElement)
  #onChange

  /** @param {() => void} onChange called after a login or logout */
  constructor(onChange) {
    this.#onChange = onChange
    this.#toggle.addEventListener('click', () => this.#show(this.#form.hidden === true, true))
    this.#form.addEventListener('submit', event => {
      event.preventDefault()
      this.#logIn({ userName: this.#userName.value, password: this.#password.value })
    })
    this.#form.addEventListener('keydown', event => {
      if (event.key === 'Escape') this.#show(false)
    })
    this.#logOut.addEventListener('click', () => this.#setCredentials(undefined))
  }

  /** Gets a ticket for the next request; `undefined` without a login. */
  get ticket() {
    const credentials = this.#credentials
    if (credentials === undefined) return undefined
    return async () => {
      const first = this.#ticket
      this.#ticket = undefined
      return first ?? (await requestTicket(credentials))
    }
  }

  /** The header for requests; `undefined` without a login. */
  get authorization() {
    return this.#credentials && authorizationOf(this.#credentials)
  }

  /**
   * Offers the login.
   *
   * @param {boolean} open whether the page needs it: then the form opens at once
   */
  offer(open) {
    this.#toggle.hidden = false
    if (open) this.#show(true)
  }

  /** @param {Credentials} credentials */
  async #logIn(credentials) {
    this.#objection.textContent = ''
    this.#form.setAttribute('aria-busy', 'true')
    try {
      this.#ticket = await requestTicket(credentials)
      this.#setCredentials(credentials)
    } catch (error) {
      this.#objection.textContent =
        error instanceof TypeError ? 'The gateway cannot be reached.' : error instanceof Error ? error.message : ''
      this.#password.select()
    } finally {
      this.#form.removeAttribute('aria-busy')
    }
  }

  /** @param {Credentials | undefined} credentials */
  #setCredentials(credentials) {
    this.#credentials = credentials
    if (credentials === undefined) this.#ticket = undefined
    const name = credentials?.userName || 'token'
    this.#toggle.replaceChildren(
      ...(credentials === undefined ? ['Log in'] : ['Logged in: ', element('bdi', '', name)]),
    )
    this.#logOut.hidden = credentials === undefined
    this.#password.value = ''
    this.#objection.textContent = ''
    this.#show(false)
    this.#onChange()
  }

  /**
   * @param {boolean} open
   * @param {boolean} [focus]
   */
  #show(open, focus = false) {
    const hadFocus = this.#form.contains(document.activeElement)
    this.#form.hidden = !open
    this.#toggle.setAttribute('aria-expanded', String(open))
    if (open && focus) this.#userName.focus()
    else if (!open && hadFocus) this.#toggle.focus()
  }
}
