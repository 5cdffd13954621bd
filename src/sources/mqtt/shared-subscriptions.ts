import type { SharedFields } from '../../journal/redis-journal.js'
import { parseSubscriptions, type RememberedSubscriptions } from '../remembered-subscriptions.js'

/** The subscriptions of a session that several gateways continue, one after the other. */
export function rememberIn(fields: SharedFields): Pick<RememberedSubscriptions, 'load' | 'save'> {
  return {
    load: async () => parseSubscriptions((await fields.get('subscriptions')) ?? ''),
    save: subscriptions => fields.set('subscriptions', JSON.stringify(subscriptions)),
  }
}
