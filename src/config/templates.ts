/*
 * The syntax of templates: placeholders such as `{topic}` and `{json.a.b}`; `{{` is a `{`.
 */

/** The names of placeholders. */
export const templateNames = ['topic', 'payload', 'time', 'id', 'rule'] as const
export type TemplateName = (typeof templateNames)[number]

/** A part of a template: text, a placeholder for a property of the message, or for a member of its JSON payload. */
export type TemplatePart =
  | { readonly text: string }
  | { readonly name: TemplateName }
  | { readonly member: readonly string[] }

/** Parses a template; `undefined` for an unknown placeholder. */
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
