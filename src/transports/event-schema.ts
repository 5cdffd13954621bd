import { z } from 'zod'

/** How an event looks as JSON, as `eventJson` writes it. */
export const eventSchema = z.object({
  id: z.string().describe('Opaque; as a cursor, it says: after this event'),
  topic: z.string(),
  time: z.iso.datetime().describe('When it was written down'),
  payload: z.string().optional().describe('Where it is valid UTF-8'),
  payloadBase64: z.string().optional().describe('Where it is not'),
  json: z.unknown().optional().describe('What a payload that is JSON says; with json=true'),
  retained: z.literal(true).optional().describe('It is the state of its topic, told to a newcomer'),
})
