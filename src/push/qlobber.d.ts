/** The part of `qlobber` that the topic index uses; the package ships no types. */
declare module 'qlobber' {
  export class Qlobber<T> {
    constructor(options: {
      separator: string
      wildcard_one: string
      wildcard_some: string
      match_empty_levels: boolean
      max_words: number
    })
    add(filter: string, value: T): this
    remove(filter: string, value: T): this
    /** The values of all filters that match. The array may be one of its own: not to be changed, nor kept. */
    match(topic: string): readonly T[]
  }
}
