/*
 * Runs before Paho, as a classic script. Paho stores every message without an acknowledgement in localStorage, so
 * that a session can survive a reload. This page's sessions are clean: nothing is ever restored, a large QoS 2 message
 * would overflow the quota and break the connection, and synchronous storage is too slow for a thousand messages a second.
 * Without localStorage Paho uses its own in-memory substitute.
 */
Object.defineProperty(window, 'localStorage', { value: undefined, configurable: true })
