import type { z } from 'zod'

/** The description of one route, for OpenAPI. */
export interface Operation {
  readonly method: 'get' | 'post' | 'delete'
  /** With parameters in braces: `/v1/connections/{connection}`. */
  readonly path: string
  /** `operationId`; default: from method and path. */
  readonly id?: string
  /** One sentence. */
  readonly summary: string
  readonly query?: z.ZodType
  /** Descriptions of optional request headers, by name. */
  readonly headers?: Readonly<Record<string, string>>
  readonly body?: z.ZodType
  /** Description of a body of another type than JSON, if there may be one. */
  readonly rawBody?: string
  /** By status. */
  readonly responses: Readonly<Record<number, OperationResponse>>
}

export interface OperationResponse {
  readonly description: string
  /** Default: `application/json` with a schema. */
  readonly type?: string
  readonly schema?: z.ZodType
  /** Descriptions of headers, by name. */
  readonly headers?: Readonly<Record<string, string>>
}
