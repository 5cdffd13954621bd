/** The panel with commands and programs to copy: tabs after the ARIA pattern, arrow keys included. */

import { byId, copyable, element } from './dom.js'
import { terminalPrograms } from './terminal-commands.js'

/** @typedef {import('./terminal-commands.js').Place} Place */

const tabList = byId('terminal-tabs', HTMLElement)
const panel = byId('terminal-panel', HTMLElement)

/** @type {HTMLButtonElement[]} */
let tabs = []
let chosen = 0
/** @type {Place | undefined} */
let place

/** @param {Place} current */
export function renderTerminal(current) {
  place = current
  const programs = terminalPrograms(current)
  if (tabs.length === 0) {
    tabs = programs.map(({ name }, index) => createTab(name, index))
    tabList.append(...tabs)
    tabList.addEventListener('keydown', moveWithKeys)
  }
  for (const [index, tab] of tabs.entries()) {
    tab.setAttribute('aria-selected', String(index === chosen))
    tab.tabIndex = index === chosen ? 0 : -1
  }
  const tab = tabs[chosen]
  if (tab !== undefined) panel.setAttribute('aria-labelledby', tab.id)
  panel.replaceChildren(
    ...(programs[chosen]?.snippets ?? []).map(({ label, code }) =>
      element('div', 'snippet', element('h3', '', label), copyable(code, label)),
    ),
  )
}

/**
 * @param {string} name
 * @param {number} index
 */
function createTab(name, index) {
  const tab = element('button', 'tab', name)
  tab.type = 'button'
  tab.id = `terminal-tab-${index}`
  tab.setAttribute('role', 'tab')
  tab.setAttribute('aria-controls', 'terminal-panel')
  tab.addEventListener('click', () => choose(index))
  return tab
}

/** @param {number} index */
function choose(index) {
  chosen = (index + tabs.length) % tabs.length
  if (place !== undefined) renderTerminal(place)
  tabs[chosen]?.focus()
}

/** @param {KeyboardEvent} event */
function moveWithKeys(event) {
  const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key]
  if (step === undefined) return
  event.preventDefault()
  choose(chosen + step)
}
