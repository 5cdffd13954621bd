/** The pure modules of `public/` that tests import. They are plain JavaScript, checked by tsconfig.json in this folder. */
declare module '*/public/topic-filter.js' {
  export function objectionToFilter(filter: string): string | undefined
  export function objectionToTopic(topic: string): string | undefined
  export function matches(filter: string, topic: string): boolean
  export function neighbourhood(topic: string): string
}

declare module '*/public/backoff.js' {
  export function backoff(failures: number, random?: () => number): number
}

declare module '*/public/close-reasons.js' {
  interface Reason {
    sentence: string
    detail?: string
    final?: boolean
    retryAfter?: number
  }
  export function explainClose(event: { code: number; reason: string }): Reason
  export function explainError(
    error: { code?: number | string; message: string },
    reasonString?: string,
  ): (Reason & { login?: boolean }) | undefined
  export function explainDisconnect(packet: {
    reasonCode?: number
    properties?: { reasonString?: string }
  }): Reason | undefined
  export function explainRefusal(what: 'message' | 'subscription', code: number, reasonString?: string): string
}

declare module '*/public/properties.js' {
  interface MessageProperties {
    messageExpiryInterval?: number
    contentType?: string
    responseTopic?: string
    correlationData?: Uint8Array
    userProperties?: Record<string, string | string[]>
  }
  export function describeProperties(
    properties: MessageProperties | undefined,
  ): { name: string; value: string; user?: boolean }[]
  export function readProperties(answers: { contentType: string; expiry: string; userProperties: string }): {
    properties?: MessageProperties
    objection?: string
    field?: 'contentType' | 'expiry' | 'userProperties'
  }
}

declare module '*/public/payload.js' {
  export const KEPT_BYTES: number
  export function describePayload(bytes: Uint8Array): {
    kind: 'empty' | 'text' | 'json' | 'binary'
    text: string
    size: number
    cut: boolean
  }
}

declare module '*/public/terminal-commands.js' {
  interface Place {
    hostname: string
    url: string
    path: string
    topic: string
    payload: string
    filter: string
  }
  export function publishCommand(place: Place): string
  export function terminalPrograms(place: Place): { name: string; snippets: { label: string; code: string }[] }[]
}

declare module '*/public/dashboard-numbers.js' {
  export function count(value: number): string
  export function rate(value: number): string
  export function bytes(value: number): string
  export function duration(seconds: number): string
  export function perSecond(now: number, before: number, seconds: number): number
  export function sum(metrics: Record<string, number>, name: string, ...labels: string[]): number
  export function byLabel(metrics: Record<string, number>, name: string, label: string): Map<string, number>
}
