/**
 * Calls functions at the end of the current turn of the event loop, in the order in which they came: one `setImmediate`
 * for all of them, after everything that was read in this turn.
 */
export class TickScheduler {
  #due: (() => void)[] = []

  add(task: () => void): void {
    if (this.#due.push(task) === 1) setImmediate(this.#run)
  }

  readonly #run = (): void => {
    const due = this.#due
    this.#due = []
    for (const task of due) task()
  }
}
