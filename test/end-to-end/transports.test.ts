import { describe } from 'vitest'
import { describeTransports } from '../contracts/transports.js'
import { startTestGateway } from '../helpers/gateway.js'

describe('the embedded broker', () => {
  describeTransports(() => startTestGateway(), { retained: true, ordered: true, once: true })
})
