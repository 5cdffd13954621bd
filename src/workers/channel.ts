import type { Answer, Body, Notices, QuestionKind } from './messages.js'

/** One end of the channel between the primary process and a worker: `process` in the worker, a `ChildProcess` in the primary process. */
export interface ChannelPort {
  send?(message: object, handle: undefined, options: undefined, sent: (error: Error | null) => void): boolean
  on(event: 'message', listener: (message: unknown) => void): unknown
}

interface Notice {
  readonly notice: keyof Notices
  readonly body: unknown
}

interface Question {
  readonly question: QuestionKind
  readonly body: unknown
  readonly id: number
}

interface Reply {
  readonly reply: number
  readonly body?: unknown
  readonly error?: string
}

/** Milliseconds until a question counts as not answered. */
const answerTimeout = 1000

/** Questions and answers between the primary process and one worker. Both are the same version of this program. */
export class Channel {
  readonly #port: ChannelPort
  readonly #noticeHandlers = new Map<keyof Notices, (body: never) => void>()
  readonly #questionHandlers = new Map<QuestionKind, (body: never) => unknown>()
  /** By number of the question. */
  readonly #pending = new Map<number, (reply: Reply) => void>()
  #lastId = 0

  constructor(port: ChannelPort) {
    this.#port = port
    port.on('message', message => this.#receive(message))
  }

  /** Sets the function that is called with notices of this kind. */
  onNotice<K extends keyof Notices>(kind: K, handler: (body: Notices[K]) => void): void {
    this.#noticeHandlers.set(kind, handler)
  }

  /** Sets the function that answers questions of this kind. */
  onQuestion<K extends QuestionKind>(kind: K, handler: (body: Body<K>) => Answer<K> | Promise<Answer<K>>): void {
    this.#questionHandlers.set(kind, handler)
  }

  /** Sends a message without an answer. @param sent called when it is written, or cannot be */
  notify<K extends keyof Notices>(kind: K, body: Notices[K], sent: () => void = ignore): void {
    this.#send({ notice: kind, body }, sent)
  }

  /** Asks the other end. Rejects if the other end fails, has ended, or does not answer in time. */
  ask<K extends QuestionKind>(kind: K, body: Body<K>, timeout = answerTimeout): Promise<Answer<K>> {
    const id = ++this.#lastId
    return new Promise((resolve, reject) => {
      const settle = (reply: Reply): void => {
        clearTimeout(timer)
        this.#pending.delete(id)
        if (reply.error === undefined) resolve(reply.body as Answer<K>)
        else reject(new Error(reply.error))
      }
      const timer = setTimeout(() => settle({ reply: id, error: `no answer within ${timeout} ms` }), timeout)
      this.#pending.set(id, settle)
      this.#send({ question: kind, body, id }, error => {
        if (error && this.#pending.has(id)) settle({ reply: id, error: error.message })
      })
    })
  }

  /** Rejects all questions: the other end has ended. */
  close(): void {
    for (const [reply, settle] of this.#pending) settle({ reply, error: 'the process has ended' })
  }

  #send(message: Notice | Question | Reply, sent: (error: Error | null) => void): void {
    if (this.#port.send) this.#port.send(message, undefined, undefined, sent)
    else sent(new Error('the channel is closed'))
  }

  #receive(message: unknown): void {
    if (typeof message !== 'object' || message === null) return
    if ('notice' in message) {
      const { notice, body } = message as Notice
      this.#noticeHandlers.get(notice)?.(body as never)
    } else if ('question' in message) this.#answer(message as Question)
    else if ('reply' in message) {
      const reply = message as Reply
      this.#pending.get(reply.reply)?.(reply)
    }
  }

  async #answer({ question, body, id }: Question): Promise<void> {
    try {
      this.#send({ reply: id, body: await this.#questionHandlers.get(question)?.(body as never) }, ignore)
    } catch (error) {
      this.#send({ reply: id, error: error instanceof Error ? error.message : String(error) }, ignore)
    }
  }
}

function ignore(): void {}
