// What can be said about a Quantize node from the graph alone, before and between runs.
import { compileWarning, fallbackNote, resolveAuto } from "./capabilities.js"
import { compileNodesAfter } from "./downstream.js"
import { matches, parsePatterns } from "./patterns.js"
import { t } from "./words.js"

const valueOf = (node, name) => node.widgets?.find((widget) => widget.name === name)?.value

/** Notes as {kind: "warning" | "info", text}; reports are those of the last run. */
export function notesFor(node, reports) {
  const method = resolveAuto(valueOf(node, "method"))
  // What the last run's own warnings say already is not said twice.
  const saidFallback = reports.some((report) => report.method === method)
  return [
    ...(saidFallback ? [] : machineNotes(method)),
    ...compileNotes(node, method),
    ...patternNotes(node, reports, "include"),
    ...patternNotes(node, reports, "exclude"),
  ]
}

function machineNotes(method) {
  const text = fallbackNote(method)
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

function patternNotes(node, reports, input) {
  const patterns = parsePatterns(valueOf(node, input) ?? "")
  if (!patterns.length || !reports.length) return []
  if (reports.some((report) => !report.layers)) return [{ kind: "info", text: t("previewNextRun") }]
  const names = reports.flatMap(({ layers }) => layers.map(({ name }) => name))
  const matched = names.filter((name) => patterns.some((pattern) => matches(pattern, name)))
  const words = { input, count: matched.length, total: names.length }
  const idle = patterns.filter(
    (pattern) =>
      !names.some((name) => matches(pattern, name)) &&
      !reports.some(({ warnings }) => warnings.some((text) => text.includes(`'${pattern}'`)))
  )
  return [
    { kind: "info", text: t("preview", words) },
    ...idle.map((pattern) => ({ kind: "warning", text: t("previewNone", { input, pattern }) })),
  ]
}
