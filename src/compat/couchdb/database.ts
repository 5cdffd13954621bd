import { ParameterError } from '../../http/parameters.js'
import { filterDepthProblem, maxFilterLevels, topicFilterProblem } from '../../topics/topic-syntax.js'

/**
 * The topics that are a database: the topic of its name, and all below it.
 *
 * @param name as it stands in the path, decoded; it may have slashes
 * @throws {ParameterError} where no topic can begin like that, or CouchDB keeps such names for itself
 */
export function topicsOf(name: string): string {
  const filter = `${name}/#`
  const problem = problemOf(name) ?? topicFilterProblem(filter)
  if (problem !== undefined) throw new ParameterError('database', `The name of a database ${problem}`)
  // The name has one level less than the filter.
  if (filterDepthProblem(filter) !== undefined) {
    throw new ParameterError('database', `The name of a database is a topic of at most ${maxFilterLevels - 1} levels`)
  }
  return filter
}

function problemOf(name: string): string | undefined {
  if (name === '') return 'must not be empty'
  if (name.startsWith('_')) return 'must not begin with _'
  if (/[+#]/.test(name)) return 'is the beginning of a topic, without the wildcards + and #'
  return undefined
}
