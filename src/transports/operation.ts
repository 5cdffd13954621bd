import type { z } from 'zod'

/** What one route takes and answers, for those who describe the API. */
export interface Operation {
  readonly method: 'get' | 'post'
  /** With parameters in braces: `/v1/connections/{connection}`. */
  readonly path: string
  /** One sentence. */
  readonly summary: string
  readonly query?: z.ZodType
  /** Descriptions of request headers, by name; none of them is required. */
  readonly headers?: Readonly<Record<string, string>>
  readonly body?: z.ZodType
  /** What a body of any other type is, where one is taken too. */
  readonly rawBody?: string
  /** By status: what the answer is, and how it looks where it is JSON. */
  readonly responses: Readonly<Record<number, OperationResponse>>
}

export interface OperationResponse {
  readonly description: string
  /** Default: `application/json` where there is a schema. */
  readonly type?: string
  readonly schema?: z.ZodType
  /** Descriptions of headers, by name. */
  readonly headers?: Readonly<Record<string, string>>
}
