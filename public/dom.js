/** DOM functions that the views share. Text is always set as text, never as HTML. */

/**
 * The element with this id and type.
 *
 * @template {HTMLElement} T
 * @param {string} id
 * @param {new () => T} type
 * @returns {T}
 */
export function byId(id, type) {
  const element = document.getElementById(id)
  if (!(element instanceof type)) throw new Error(`index.html has no ${type.name} with the id ${id}`)
  return element
}

/**
 * @template {keyof HTMLElementTagNameMap} K
 * @param {K} tag
 * @param {string} className
 * @param {...(Node | string)} children
 * @returns {HTMLElementTagNameMap[K]}
 */
export function element(tag, className, ...children) {
  const created = document.createElement(tag)
  if (className !== '') created.className = className
  created.append(...children)
  return created
}

/**
 * An element with foreign text: a topic, a payload, a name. It has its own direction (Unicode TR9), so that direction marks in it do
 * not affect its surroundings.
 *
 * @template {keyof HTMLElementTagNameMap} K
 * @param {K} tag
 * @param {string} className
 * @param {string} text
 */
export function foreign(tag, className, text) {
  const created = element(tag, className, text)
  created.dir = 'auto'
  return created
}

/**
 * @param {string} label
 * @param {string} className
 * @param {() => void} onClick
 */
export function button(label, className, onClick) {
  const created = element('button', className, label)
  created.type = 'button'
  created.addEventListener('click', onClick)
  return created
}

/**
 * Returns a function that runs `render` once in the next animation frame, however often it is called: at most sixty times a
 * second, and never in a hidden tab.
 *
 * @param {() => void} render
 */
export function oncePerFrame(render) {
  let scheduled = false
  return () => {
    if (scheduled) return
    scheduled = true
    requestAnimationFrame(() => {
      scheduled = false
      render()
    })
  }
}

/**
 * The chosen QoS of a group of radio buttons.
 *
 * @param {HTMLFormElement} form
 * @param {string} name
 * @returns {0 | 1 | 2}
 */
export function chosenQos(form, name) {
  const value = new FormData(form).get(name)
  if (value === '0') return 0
  return value === '2' ? 2 : 1
}

/**
 * Shows an error at an input, also to assistive technology; without an error, removes it.
 *
 * @param {HTMLInputElement} input
 * @param {HTMLElement} place
 * @param {string | undefined} objection
 */
export function showObjection(input, place, objection) {
  place.textContent = objection ?? ''
  if (objection === undefined) input.removeAttribute('aria-invalid')
  else input.setAttribute('aria-invalid', 'true')
}

/**
 * A command line or a program, with a button that copies it.
 *
 * @param {string} text
 * @param {string} label
 */
export function copyable(text, label) {
  const pre = element('pre', '', element('code', '', text))
  pre.tabIndex = 0
  const copy = button('Copy', 'copy', async () => {
    copy.textContent = await copyText(text, pre)
    setTimeout(() => {
      copy.textContent = 'Copy'
    }, 2_000)
  })
  copy.setAttribute('aria-label', `Copy: ${label}`)
  copy.setAttribute('aria-live', 'polite')
  return element('div', 'copyable', pre, copy)
}

/**
 * @param {string} text
 * @param {HTMLElement} shown
 * @returns {Promise<string>} what to say about it
 */
async function copyText(text, shown) {
  try {
    await navigator.clipboard.writeText(text)
    return 'Copied'
  } catch {
    // Pages over http from another machine have no clipboard: select the text instead.
    getSelection()?.selectAllChildren(shown)
    return 'Selected'
  }
}
