// The dialog with every layer of a report, sortable, biggest first.
import { element, openDialog } from "./dom.js"
import { bytes } from "./report.js"
import { said } from "./said.js"
import { t, word } from "./words.js"

const text = (value) => value ?? ""
const spoken = (value) => said(value ?? "")
const COLUMNS = [
  { key: "part", show: text },
  { key: "name", show: text },
  { key: "kind", show: word },
  { key: "shape", show: (shape) => shape.join(" x "), order: (shape) => -product(shape) },
  { key: "dtype", show: text },
  { key: "format", show: text },
  { key: "bytes_before", show: bytes, order: (count) => -count },
  { key: "bytes_after", show: bytes, order: (count) => -count },
  { key: "action", show: word },
  { key: "effect", show: (effect) => effect?.toFixed(5) ?? "", order: (effect) => -(effect ?? -1) },
  { key: "rounding", show: errors, order: (rounding) => -(rounding?.output_error ?? 0) },
  { key: "reason", show: spoken },
]
// Columns that a report may have nothing for.
const OPTIONAL = ["part", "effect", "rounding"]
const BIGGEST_FIRST = COLUMNS.find((column) => column.key === "bytes_after")

/** reports: at least one of them with its layers. */
export function openDetails(title, reports) {
  const rows = reports.flatMap(rowsOf)
  const columns = COLUMNS.filter(({ key }) => !OPTIONAL.includes(key) || rows.some((row) => row[key]))
  const body = element("tbody", "rows")
  let sorting = { column: BIGGEST_FIRST, reversed: false }

  const filter = element("input", "filter")
  filter.placeholder = t("filterLayers")
  filter.addEventListener("input", fill)

  const headers = columns.map((column) => {
    const header = element("th", "column", t(`column_${column.key}`))
    header.tabIndex = 0
    const sort = () => {
      const reversed = sorting.column === column && !sorting.reversed
      sorting = { column, reversed }
      fill()
    }
    header.addEventListener("click", sort)
    header.addEventListener("keydown", ({ key }) => key === "Enter" && sort())
    return header
  })

  function fill() {
    const wanted = filter.value.toLowerCase()
    const words = ({ name, reason }) => `${name} ${reason} ${spoken(reason)}`.toLowerCase()
    const shown = rows.filter((row) => words(row).includes(wanted))
    shown.sort((a, b) => compare(a, b, sorting.column))
    if (sorting.reversed) shown.reverse()
    body.replaceChildren(...shown.map((row) => rowOf(row, columns)))
    for (const [index, header] of headers.entries()) {
      const sorted = columns[index] === sorting.column
      header.ariaSort = sorted ? (sorting.reversed ? "descending" : "ascending") : "none"
    }
    const [before, after] = ["bytes_before", "bytes_after"].map((key) => bytes(sum(shown, key)))
    count.textContent = t("rowCount", { shown: shown.length, total: rows.length, before, after })
  }

  const count = element("span", "count")
  const table = element(
    "table",
    "table",
    element("thead", "head", element("tr", "names", ...headers)),
    body
  )
  fill()
  const bar = element("div", "tools", filter, count)
  openDialog(title, t("close"), bar, element("div", "scroll", table))
}

/** A row for each layer, and one for each group of other tensors: biases, norms. */
function rowsOf({ part, layers, remainder = [] }) {
  const rest = remainder.map(({ names, count, bytes, ...why }) => ({
    ...why,
    name: count > 1 ? t("andMore", { named: names[0], more: count - 1 }) : names[0],
    shape: [],
    bytes_before: bytes,
    bytes_after: bytes,
    action: "keep",
  }))
  return [...layers, ...rest].map((row) => ({ part, ...row }))
}

function rowOf(row, columns) {
  const cells = columns.map(({ key, show }) => element("td", `cell-${key}`, show(row[key])))
  const made = element("tr", "row", ...cells)
  made.dataset.action = row.action
  return made
}

function compare(a, b, { key, order = text }) {
  const [first, second] = [order(a[key]), order(b[key])]
  if (first === second) return a.name.localeCompare(b.name, "en", { numeric: true })
  if (typeof first === "number") return first - second
  return String(first).localeCompare(String(second), "en", { numeric: true })
}

/** Relative errors of a layer that was rounded by a calibration: of its output, then its weight. */
function errors(rounding) {
  if (rounding?.output_error == null) return spoken(rounding?.note)
  const [output, weight] = [rounding.output_error, rounding.weight_error].map((each) => each.toFixed(4))
  return `${word(rounding.way)} ${output} / ${weight}`
}

const product = (shape) => shape.reduce((size, length) => size * length, 1)
const sum = (rows, key) => rows.reduce((total, row) => total + row[key], 0)
