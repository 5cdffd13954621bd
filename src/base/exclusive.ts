/** Runs tasks one after the other, in order. */
export class Exclusive {
  #last: Promise<unknown> = Promise.resolve()

  run<T>(task: () => Promise<T>): Promise<T> {
    const current = this.#last.then(task, task)
    this.#last = current.catch(() => {})
    return current
  }
}
