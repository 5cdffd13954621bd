import type { AttackedGateway } from '../helpers/attacked-gateway.js'

/** 100 ms, and longer in proportion to the time in which the gateway waited for a core since `began`. */
export async function boundSince(
  gateway: AttackedGateway,
  began: Awaited<ReturnType<AttackedGateway['scheduling']>>,
): Promise<number> {
  const { run, waited } = await gateway.scheduling()
  return 100 * (1 + (waited - began.waited) / (run - began.run))
}
