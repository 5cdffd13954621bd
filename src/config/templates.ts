/*
 * What a text with places in it looks like in the configuration: `{topic}`, `{json.a.b}`; `{{` is a `{`.
 */

/** What can be put in. */
export const templateNames = ['topic', 'payload', 'time', 'id', 'rule'] as const
export type TemplateName = (typeof templateNames)[number]

/** What a template is made of: text, places for what is said of a message, and for a member of its JSON payload. */
export type TemplatePart =
  | { readonly text: string }
  | { readonly name: TemplateName }
  | { readonly member: readonly string[] }

/** Takes a template apart; `undefined` where a place is none that there is. */
export function parseTemplate(template: string): readonly TemplatePart[] | undefined {
  const parts: TemplatePart[] = []
  for (const [piece, inner] of template.matchAll(/\{\{|\}\}|\{([^{}]*)\}|[{}]|[^{}]+/g)) {
    const name = templateNames.find(candidate => candidate === inner)
    if (name !== undefined) parts.push({ name })
    else if (inner?.startsWith('json.')) parts.push({ member: inner.slice('json.'.length).split('.') })
    else if (inner !== undefined || piece === '{' || piece === '}') return undefined
    else parts.push({ text: piece === '{{' ? '{' : piece === '}}' ? '}' : piece })
  }
  return parts
}
