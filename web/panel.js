// The panel itself: what is known about one node, drawn. See notes.js for what it says before a run.
import { openDetails } from "./details.js"
import { button, element } from "./dom.js"
import { bytes, methodWords, percent } from "./report.js"
import { said, saidEach } from "./said.js"
import { t } from "./words.js"

/** The panel's content. run: of ``lastRun``; chosen: the method's name, null where another node
decides, undefined for a node without methods; estimate: {before, after} in bytes, or null. */
export function panelContent(node, run, chosen, notes, estimate) {
  const { reports, verdicts, error, stale } = run
  const something = reports.length || verdicts.length
  const content = error ? [note("error", said(error))] : []
  if (chosen !== undefined && (stale || !reports.length)) content.push(choice(chosen, estimate))
  else if (!something && !error) content.push(element("div", "faint", t("notRun")))
  content.push(...notes.map(({ kind, text }) => note(kind, text)))
  const last = [
    ...(stale && !reports.length ? [element("div", "faint", t("staleOther"))] : []),
    ...reports.map((report) => section(report, run, chosen)),
    ...verdicts.map(verdict),
  ]
  if (error && something) last.unshift(element("div", "faint", t("lastGood")))
  const shown = something ? [element("div", "last", ...last)] : []
  if (stale || error) shown.forEach((each) => (each.dataset.stale = "true"))
  // What holds now stands above what held then.
  if (stale || error) content.push(...shown)
  else content.unshift(...shown)
  const body = element("div", "body", ...content)
  return reports.length ? [body, footer(node, reports)] : [body]
}

/** One line on what the chosen method does. */
function choice(method, estimate) {
  if (method === null) return element("div", "choice", t("method_config"))
  const key = method.startsWith("default") ? "method_default" : `method_${method}`
  const name = method.startsWith("default") ? null : element("strong", "chosen", method)
  const sizes = estimate && { before: bytes(estimate.before), after: bytes(estimate.after) }
  const size = sizes ? element("span", "faint", t("estimate", sizes)) : null
  return element("div", "choice", name, element("span", "summary", t(key)), size)
}

function section(report, { earlier, stale }, chosen) {
  const method = element("strong", "method", methodWords(report))
  const part = report.part ? element("span", "part", report.part) : null
  const other = report.method === chosen ? t("staleOther") : t("stale", { method: report.method })
  const age = stale ? other : earlier ? t("earlier") : null
  const mark = age ? element("span", stale ? "stale" : "earlier", age) : null
  const words = { quantized: report.quantized_layers, kept: report.skipped_layers }
  return element(
    "section",
    "section",
    element("div", "top", part, method, mark),
    element("div", "layers", t("layers", words)),
    // A file's report has no size before: the file's own is in its verdict.
    report.headline ? element("div", "size", inMemory(report)) : sizeBar(report),
    ...report.warnings.map((warning) => note("warning", said(warning))),
    ...(report.notes ?? []).map((text) => note("info", said(text)))
  )
}

function sizeBar(report) {
  const fill = element("div", "fill")
  fill.style.width = `${Math.min(100, percent(report))}%`
  const before = bytes(report.model_bytes_before)
  const after = bytes(report.model_bytes_after)
  return element(
    "div",
    "size",
    element("div", "bar", fill),
    element("span", "bytes", t("sizes", { before, after, percent: percent(report) }))
  )
}

const inMemory = ({ model_bytes_after: size }) =>
  element("span", "bytes", t("inMemory", { size: bytes(size) }))

const MARKS = { good: "\u2713", bad: "\u2717", info: "" }

/** What a measuring or saving node found: {key, values, tone}. */
function verdict({ key, values, tone }) {
  const spoken = Object.entries(values).map(([name, value]) => [name, said(String(value))])
  const sentence = t(key, Object.fromEntries(spoken))
  const made = element("div", "verdict", `${MARKS[tone]} ${sentence}`.trim())
  made.dataset.tone = tone
  return made
}

function note(kind, text) {
  return element("div", `note graphquant-${kind}`, text)
}

function footer(node, reports) {
  const layered = reports.filter((report) => report.layers)
  const kernels = [...new Set(reports.map((report) => saidEach(report.kernel)))].join("; ")
  const action = layered.length
    ? button("details", t("details"), () => openDetails(node.title, layered))
    : element("span", "faint", t("detailsNextRun"))
  return element("div", "footer", element("span", "faint", kernels), action)
}
