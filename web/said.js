// Sentences of the server in the editor's language. They come in English; a locale's
// "graphquant_said" has their translations by what is fixed in them, such as "preset {preset} keeps
// {pattern}", and what is not in there is shown as it came.
import { sentences } from "./words.js"

let compiled = { translations: null, templates: [] }

/** A sentence of the server in the editor's language, and so the sentences within it. */
export function said(text) {
  for (const { read, translation } of templates()) {
    const values = read(text)
    if (values) return fill(translation, values)
  }
  return text
}

/** Several names or sentences with ", " between. */
export function saidEach(text) {
  const whole = said(text)
  return whole === text ? text.split(", ").map(said).join(", ") : whole
}

/** Those with the most fixed text first: of two that match, it is the one that was meant. */
function templates() {
  const translations = sentences()
  if (compiled.translations !== translations) {
    const fixed = (pattern) => pattern.replace(/\{\w+\}/g, "").length
    const sorted = Object.entries(translations).sort(([a], [b]) => fixed(b) - fixed(a))
    const made = sorted.map(([pattern, translation]) => ({ read: reader(pattern), translation }))
    compiled = { translations, templates: made }
  }
  return compiled.templates
}

/** A function that gives the {names} of a template as they stand in a text, or null where the text
is another sentence. */
export function reader(pattern) {
  const names = []
  const source = pattern
    .split(/(\{\w+\})/)
    .map((piece) => {
      if (!/^\{\w+\}$/.test(piece)) return piece.replace(/[.*+?^${}()|[\]\\]/g, "\\$&")
      names.push(piece.slice(1, -1))
      return "(.+?)"
    })
    .join("")
  const whole = new RegExp(`^${source}$`, "s")
  return (text) => {
    const found = whole.exec(text)
    return found && Object.fromEntries(names.map((name, at) => [name, found[at + 1]]))
  }
}

const fill = (translation, values) =>
  translation.replace(/\{(\w+)\}/g, (whole, name) => (name in values ? saidEach(values[name]) : whole))
