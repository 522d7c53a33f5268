// What can be said about a Quantize node from the graph alone, before and between runs.
import {
  compileWarning,
  ignores,
  inputsOfSomeMethods,
  methodNote,
  needsCalibration,
  resolveAuto,
} from "./capabilities.js"
import { compileNodesAfter } from "./downstream.js"
import { matches, parsePatterns } from "./patterns.js"
import { valueOf, widgetOf } from "./subgraphs.js"
import { t } from "./words.js"

/** Notes as {kind: "warning" | "info", text}. current: the reports of a run with these inputs;
last: those of the last run, whatever its inputs were. */
export function notesFor(node, current, last) {
  const method = chosenMethod(node)
  // What a run's own warnings say already is not said twice.
  const saidFallback = current.some((report) => report.method === method)
  return [
    ...(saidFallback ? [] : machineNotes(method, node.comfyClass, valueOf(node, "compute"))),
    ...inputNotes(node, method),
    ...negativeNotes(node),
    ...compileNotes(node, method),
    ...patternNotes(node, last, "include"),
    ...patternNotes(node, last, "exclude"),
  ]
}

/** The method's name; null where a Quantization Config is connected, as what it holds is read by the
run; undefined for a node without methods. */
export function chosenMethod(node) {
  if (!widgetOf(node, "method")) return undefined
  if (node.inputs?.some(({ name, link }) => name === "config" && link != null)) return null
  const value = valueOf(node, "method")
  return node.comfyClass === "GQQuantizeModel" ? resolveAuto(value) : value
}

function machineNotes(method, kind, compute) {
  const text = method && methodNote(method, kind, compute)
  return text ? [{ kind: "info", text }] : []
}

/** What is set and does nothing for this method, and what the method cannot do without. */
function inputNotes(node, method) {
  if (!method) return []
  const calibrated = isLinked(node, "calibration")
  const missing = hasInput(node, "calibration") && needsCalibration(method) && !calibrated
  const idle = inputsOfSomeMethods().filter(
    (name) => isSet(node, name) && ignores(method, name, node.comfyClass, valueOf(node, "compute"))
  )
  const uncalibrated = isSet(node, "rounding") && !calibrated && !missing
  return [
    ...(missing ? [{ kind: "warning", text: t("needsCalibration", { method }) }] : []),
    ...idle.map((name) => idleNote("idleInput", node, name, method)),
    ...(uncalibrated ? [idleNote("idleRounding", node, "rounding", method)] : []),
  ]
}

/** Without guidance, which a cfg of 1 is, the negative is left out. */
function negativeNotes(node) {
  const idle = isLinked(node, "negative") && valueOf(node, "cfg") === 1
  return idle ? [idleNote("idleNegative", node, "negative")] : []
}

function idleNote(key, node, name, method) {
  const input = widgetOf(node, name) ?? inputOf(node, name)
  return { kind: "info", text: t(key, { input: input.label ?? name, method }) }
}

const inputOf = (node, name) => node.inputs?.find((input) => input.name === name)
const hasInput = (node, name) => inputOf(node, name) !== undefined
const isLinked = (node, name) => inputOf(node, name)?.link != null

/** Whether an input has a link, or a widget another value than a new node has. */
function isSet(node, name) {
  if (isLinked(node, name)) return true
  const { required, optional } = node.constructor.nodeData?.input ?? {}
  const usual = (optional?.[name] ?? required?.[name])?.[1]?.default
  return widgetOf(node, name) !== undefined && valueOf(node, name) !== usual
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
