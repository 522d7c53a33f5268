// Sentences of the server's reports in the editor's language. They come in English; a locale has
// the templates that begin with "said_", and what none of them matches is shown as it came.
import { template, templates, t } from "./words.js"

/** A sentence of a report in the editor's language. */
export function said(text) {
  for (const key of templates("said_")) {
    const values = read(template(key), text)
    if (values) return t(key, values)
  }
  return text
}

/** The {names} of a template as they stand in `text`, or null where it is another sentence. */
export function read(pattern, text) {
  const names = []
  const source = pattern
    .split(/(\{\w+\})/)
    .map((piece) => {
      if (!/^\{\w+\}$/.test(piece)) return piece.replace(/[.*+?^${}()|[\]\\]/g, "\\$&")
      names.push(piece.slice(1, -1))
      return "(.+?)"
    })
    .join("")
  const found = new RegExp(`^${source}$`, "s").exec(text)
  return found && Object.fromEntries(names.map((name, at) => [name, found[at + 1]]))
}
