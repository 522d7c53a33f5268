// The panel itself: what is known about one node, drawn. See notes.js for what it says before a run.
import { openDetails } from "./details.js"
import { button, element } from "./dom.js"
import { bytes, methodWords, percent } from "./report.js"
import { t } from "./words.js"

/** The panel's content. reports: of the last run, or none; earlier: of one before a reload. */
export function panelContent(node, { reports, earlier }, notes) {
  const content = reports.map((report) => section(report, earlier))
  content.push(...notes.map(({ kind, text }) => note(kind, text)))
  if (reports.length) content.push(footer(node, reports))
  return content
}

function section(report, earlier) {
  const method = element("strong", "method", methodWords(report))
  const part = report.part ? element("span", "part", report.part) : null
  const mark = earlier ? element("span", "earlier", t("earlier")) : null
  const words = { quantized: report.quantized_layers, kept: report.skipped_layers }
  return element(
    "section",
    "section",
    element("div", "top", part, method, mark),
    element("div", "layers", t("layers", words)),
    sizeBar(report),
    ...report.warnings.map((warning) => note("warning", warning)),
    // A report that was kept in the browser by an older version has none.
    ...(report.notes ?? []).map((text) => note("info", text))
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
    element("span", "bytes", `${before} \u2192 ${after} (${percent(report)} %)`)
  )
}

function note(kind, text) {
  return element("div", `note graphquant-${kind}`, text)
}

function footer(node, reports) {
  const layered = reports.filter((report) => report.layers)
  const kernels = [...new Set(reports.map((report) => report.kernel))].join("; ")
  const action = layered.length
    ? button("details", t("details"), () => openDetails(node.title, layered))
    : element("span", "faint", t("detailsNextRun"))
  return element("div", "footer", element("span", "faint", kernels), action)
}
