/** The gateway that is attacked, and the attacker's place in the network. */
export interface AttackTarget {
  /** Port of MQTT over TCP on 127.0.0.1. */
  readonly mqttPort: number
  /** Base URL of HTTP, `http://127.0.0.1:…/`. */
  readonly http: string
  /** Base URL of HTTPS, with HTTP/2; empty where it is off. Its certificate is not to be verified. */
  readonly https: string
  /** Local address of the attacker's sockets, 127.0.0.4 and up. */
  readonly address: string
  /** Credentials of a user; left out where the gateway takes everybody, and for an attack by somebody without a name. */
  readonly username?: string
  readonly password?: string
}

/** One attack of one client address. */
export interface Scenario {
  /** A few words in kebab case, unique: `filters-of-many-levels`. */
  readonly name: string
  /**
   * Repeats the attack until `signal` is aborted, and leaves nothing open. A refusal or a connection that the gateway closes is no
   * error: it goes on. Resolves with the number of requests, packets or connections that it sent. Waits for sockets between its
   * rounds, so that the attacker itself does not take up a core.
   */
  run(target: AttackTarget, signal: AbortSignal): Promise<number>
}
