// A report as the server sends it (quant_core/report.py), in words, and small enough to be saved.
import { t } from "./words.js"

const MIB = 1024 * 1024
// A layer list above this many characters is not kept for after a reload.
const SAVED_LAYERS_LIMIT = 40_000

export function bytes(count) {
  const mib = count / MIB
  return mib < 1000 ? `${mib.toFixed(1)} MiB` : `${(mib / 1024).toFixed(2)} GiB`
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
