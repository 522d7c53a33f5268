// A report as the server sends it (quant_core/report.py), in words, and small enough to be saved.
import { t } from "./words.js"

const MIB = 1024 * 1024
// A layer list above this many characters is not kept for after a reload.
const SAVED_LAYERS_LIMIT = 40_000

/** A size in MiB or GiB, whatever it is: less than 1 MiB with two digits that say something. */
export function bytes(count) {
  const mib = count / MIB
  if (mib >= 1000) return `${(mib / 1024).toFixed(2)} GiB`
  if (mib >= 0.95 || count === 0) return `${mib.toFixed(count ? 1 : 0)} MiB`
  return mib < 0.0001 ? "< 0.0001 MiB" : `${mib.toPrecision(2)} MiB`
}

/** The method that ran, and as what when the one asked for could not. */
export function methodWords({ method, runs_as }) {
  if (method === "already_quantized") return t("already")
  return method === runs_as ? method : t("as", { method, runs_as })
}

export function percent({ model_bytes_before: before, model_bytes_after: after }) {
  return before ? Math.round((100 * after) / before) : 100
}

/** What is kept of a report: layers that differ only by name share one entry. */
export function pack(report) {
  const { layers, ...summary } = report
  const groups = new Map()
  for (const { name, ...same } of layers) {
    const key = JSON.stringify(same)
    groups.set(key, [...(groups.get(key) ?? []), name])
  }
  const packed = [...groups].map(([key, names]) => [JSON.parse(key), names])
  return JSON.stringify(packed).length > SAVED_LAYERS_LIMIT ? summary : { ...summary, packed }
}

/** The report that `pack` was given; without layers where they were too many to keep. */
export function unpack({ packed, ...summary }) {
  const layers = packed?.flatMap(([same, names]) => names.map((name) => ({ name, ...same })))
  return { ...summary, layers }
}
