/** The animation of a message between this page and the gateway, in the header. */

import { byId } from './dom.js'

/**
 * Animates a message; at most one at a time in each direction.
 *
 * @param {'in' | 'out'} direction
 */
export function animateMessage(direction) {
  const dot = byId(`moving-message-${direction}`, HTMLElement)
  if (dot.classList.contains('moving')) return
  dot.classList.add('moving')
  dot.addEventListener('animationend', () => dot.classList.remove('moving'), { once: true })
}
