/** A message on its way, seen in the head of a page. */

import { byId } from './dom.js'

/**
 * At most one at a time in each direction, however many there are.
 *
 * @param {'in' | 'out'} direction
 */
export function showParcel(direction) {
  const parcel = byId(`parcel-${direction}`, HTMLElement)
  if (parcel.classList.contains('moving')) return
  parcel.classList.add('moving')
  parcel.addEventListener('animationend', () => parcel.classList.remove('moving'), { once: true })
}
