import * as absentSessions from './absent-sessions.js'
import * as gatewayIds from './gateway-ids.js'
import * as httpRequests from './http-requests.js'
import { http2Scenarios } from './http2.js'
import * as jsonFloods from './json-floods.js'
import * as mqtt5 from './mqtt5.js'
import * as neighbours from './neighbours.js'
import * as persistentSessions from './persistent-sessions.js'
import { pipelinedRequestsScenario } from './pipelined-requests.js'
import * as retainedMessages from './retained-messages.js'
import type { Scenario } from './scenario.js'
import * as subscriptions from './subscriptions.js'
import * as webSockets from './web-sockets.js'

/** Every attack. */
export const scenarios: readonly Scenario[] = [
  ...Object.values(subscriptions),
  ...Object.values(retainedMessages),
  ...Object.values(persistentSessions),
  absentSessions.messagesForAbsentSessions,
  ...Object.values(gatewayIds),
  ...Object.values(httpRequests),
  pipelinedRequestsScenario,
  ...http2Scenarios,
  ...Object.values(jsonFloods),
  ...Object.values(webSockets),
  ...Object.values(mqtt5),
  ...Object.values(neighbours),
]
