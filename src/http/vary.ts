import type { FastifyReply } from 'fastify'

/** Says that a response depends on a header of its request, too (RFC 9110 §12.5.5). Repeated, it says so once. */
export function addVary(reply: FastifyReply, name: string): void {
  const said = reply.getHeader('vary')
  if (said === undefined) reply.header('vary', name)
  else if (!String(said).split(', ').includes(name)) reply.header('vary', `${String(said)}, ${name}`)
}
