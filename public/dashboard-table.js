/** Rows of small tables, in which only what has changed is written: an update every 2 s must not move the selection or the focus. */

import { button, element } from './dom.js'

/**
 * @typedef {object} Cell
 * @property {string} text
 * @property {string} [className]
 * @property {boolean} [isCode] whether the text is foreign: a topic, a payload, a name
 * @property {() => void} [onClick] makes the cell a button
 * @property {string} [title]
 */

/**
 * @param {HTMLElement} body
 * @param {{ key: string, cells: Cell[], className?: string }[]} rows
 */
export function renderRows(body, rows) {
  /** @type {Map<string, HTMLTableRowElement>} */
  const former = new Map()
  for (const row of body.querySelectorAll('tr')) former.set(row.dataset['key'] ?? '', row)
  /** @type {Element | null} */
  let next = body.firstElementChild
  for (const { key, cells, className = '' } of rows) {
    let row = former.get(key)
    former.delete(key)
    if (row === undefined || row.cells.length !== cells.length) {
      const made = element('tr', '', ...cells.map(() => element('td', '')))
      made.dataset['key'] = key
      if (row === next) next = row?.nextElementSibling ?? null
      row?.remove()
      row = made
    }
    if (row === next) next = row.nextElementSibling
    else body.insertBefore(row, next)
    if (row.className !== className) row.className = className
    for (const [index, cell] of cells.entries()) {
      const place = row.cells[index]
      if (place) renderCell(place, cell)
    }
  }
  for (const row of former.values()) row.remove()
}

/**
 * @param {HTMLTableCellElement} place
 * @param {Cell} cell
 */
function renderCell(place, { text, className = '', isCode = false, onClick, title = '' }) {
  if (place.className !== className) place.className = className
  if (place.title !== title) place.title = title
  /** @type {HTMLElement | undefined} */
  let shown = place.firstElementChild instanceof HTMLElement ? place.firstElementChild : undefined
  if (shown === undefined) {
    shown = onClick ? button('', 'quiet', () => {}) : element('span', '')
    if (isCode) shown.dir = 'auto'
    place.append(shown)
  }
  if (onClick) shown.onclick = onClick
  if (shown.textContent !== text) shown.textContent = text
}

/**
 * The head of a table.
 *
 * @param {HTMLElement} head
 * @param {{ text: string, isNumber?: boolean }[]} columns
 */
export function renderHead(head, columns) {
  const text = columns.map(column => column.text).join()
  if (head.dataset['columns'] === text) return
  head.dataset['columns'] = text
  const cells = columns.map(column => {
    const cell = element('th', column.isNumber ? 'number' : '', column.text)
    cell.scope = 'col'
    return cell
  })
  head.replaceChildren(element('tr', '', ...cells))
}
