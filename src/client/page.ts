/*
 * Browser features beside the connection. Other environments have none of them.
 */

/**
 * Calls back when an attempt may succeed again: the network is back, and may be another one (`online`), or the page is visible
 * again, which may have lost its connections in the back/forward cache.
 */
export function watchPage(signal: AbortSignal, back: (online: boolean) => void): void {
  const listener = ({ type }: Event): void => {
    const online = type === 'online'
    if (online || !document.hidden) back(online)
  }
  // `visibilitychange` bubbles up from the document.
  for (const type of ['online', 'pageshow', 'visibilitychange']) {
    globalThis.addEventListener?.(type, listener, { signal })
  }
}

/** Reads a value of the session storage, after writing `value` if given; `null` without storage. */
export function tabStorage(key: string, value?: string): string | null {
  try {
    if (value) sessionStorage.setItem(key, value)
    return sessionStorage.getItem(key)
  } catch {
    return null
  }
}

/**
 * The gateway's address with a trailing slash.
 *
 * @param url default: the origin of the page
 * @throws {TypeError} without `url` outside of pages and on pages opened as a file; for an invalid `url`
 */
export function gatewayUrl(url: string | URL | undefined): URL {
  try {
    return new URL(`${url ?? location.origin}`.replace(/\/*$/, '/'))
  } catch {
    throw new TypeError('connect needs the option url: the address of the gateway, such as https://example.org')
  }
}
