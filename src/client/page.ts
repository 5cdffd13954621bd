/*
 * What a browser knows beside the connection. Elsewhere, none of it exists.
 */

/**
 * Calls back when a try is worth more than the last one was: the network has come back, and may be another one (`online`); or
 * somebody looks at the page again, which may have lost its connections while it was kept for the way back.
 */
export function watchPage(signal: AbortSignal, back: (online: boolean) => void): void {
  const listener = ({ type }: Event): void => {
    const online = type === 'online'
    if (online || !document.hidden) back(online)
  }
  // The last one bubbles up from the document.
  for (const type of ['online', 'pageshow', 'visibilitychange']) {
    globalThis.addEventListener?.(type, listener, { signal })
  }
}

/** What pages of this tab keep for one another, where there is such a thing, and it is allowed; with `value`, keeps that. */
export function tabMemory(key: string, value?: string): string | null {
  try {
    if (value) sessionStorage.setItem(key, value)
    return sessionStorage.getItem(key)
  } catch {
    return null
  }
}

/**
 * The gateway's address, with a slash at its end.
 *
 * @param url default: the origin of the page
 * @throws {TypeError} without `url` where there is no page, or one from a file; and for a `url` that is none
 */
export function gatewayUrl(url: string | URL | undefined): URL {
  try {
    return new URL(`${url ?? location.origin}`.replace(/\/*$/, '/'))
  } catch {
    throw new TypeError('connect needs the option url: the address of the gateway, such as https://example.org')
  }
}
