// What can be said about a Quantize node from the graph alone, before and between runs.
import { compileWarning, methodNote, resolveAuto } from "./capabilities.js"
import { compileNodesAfter } from "./downstream.js"
import { matches, parsePatterns } from "./patterns.js"
import { t } from "./words.js"

const widgetOf = (node, name) => node.widgets?.find((widget) => widget.name === name)
const valueOf = (node, name) => widgetOf(node, name)?.value

/** Notes as {kind: "warning" | "info", text}; reports are those of the last run. */
export function notesFor(node, reports) {
  const method = chosenMethod(node)
  // What the last run's own warnings say already is not said twice.
  const saidFallback = reports.some((report) => report.method === method)
  return [
    ...(saidFallback ? [] : machineNotes(method, node.comfyClass)),
    ...compileNotes(node, method),
    ...patternNotes(node, reports, "include"),
    ...patternNotes(node, reports, "exclude"),
  ]
}

/** null where a Quantization Config is connected: the method is in there, unread before the run. */
function chosenMethod(node) {
  if (node.inputs?.some(({ name, link }) => name === "config" && link != null)) return null
  const value = valueOf(node, "method")
  return node.comfyClass === "GQQuantizeModel" ? resolveAuto(value) : value
}

function machineNotes(method, kind) {
  const text = method && methodNote(method, kind)
  return text ? [{ kind: "info", text }] : []
}

function compileNotes(node, method) {
  if (method !== "fp8-dynamic") return []
  return compileNodesAfter(node).map(({ title, mode }) => {
    const warning = compileWarning(method, mode)
    if (warning) return { kind: "warning", text: `${title}: ${warning}` }
    return { kind: "info", text: t("compileNote", { title }) }
  })
}

/** The name that patterns are matched with: an encoder's starts with its place in the CLIP. */
const full = (part, name) => (part ? `${part}.transformer.${name}` : name)

function patternNotes(node, reports, name) {
  const patterns = parsePatterns(valueOf(node, name) ?? "")
  if (!patterns.length || !reports.length) return []
  if (reports.some((report) => !report.layers)) return [{ kind: "info", text: t("previewNextRun") }]
  // As the node shows it, in the editor's language.
  const input = widgetOf(node, name).label ?? name
  const names = reports.flatMap(({ part, layers }) => layers.map((layer) => full(part, layer.name)))
  const matched = names.filter((name) => patterns.some((pattern) => matches(pattern, name)))
  const words = { input, count: matched.length, total: names.length }
  const idle = patterns.filter(
    (pattern) =>
      !names.some((name) => matches(pattern, name)) &&
      !reports.some(({ warnings }) => warnings.some((text) => text.includes(`'${pattern}'`)))
  )
  return [
    { kind: "info", text: t("preview", words) },
    ...(idle.length ? [{ kind: "warning", text: idleText(input, idle) }] : []),
  ]
}

/** One line, however many patterns match nothing. */
function idleText(input, idle) {
  const named = idle.slice(0, 3).join(", ")
  const pattern = idle.length > 3 ? t("andMore", { named, more: idle.length - 3 }) : named
  return t("previewNone", { input, pattern })
}
