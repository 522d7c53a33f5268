// The results of earlier runs, for after a reload. They stay in the browser: a run does not change
// the workflow, nor what is embedded in the pictures it makes.
import { pack, unpack } from "./report.js"

const KEY = "graphquant.runs"
// In characters, of the few million that a browser gives to all of ComfyUI.
const LIMIT = 500_000
// Of one node, so that each of its pictures finds its own.
const EACH = 6

/** Keep a node's result with what made it, newest last; the oldest go where there are too many. */
export function remember(key, { reports, verdicts, made }) {
  const all = read()
  const same = all.filter((run) => run.key === key && run.made !== made)
  const others = all.filter((run) => run.key !== key)
  const newest = { key, made, verdicts, reports: reports.map(pack) }
  write([...others, ...same.slice(1 - EACH), newest])
}

/** What this browser kept of that node's run with these very inputs, or null. */
export function recall(key, made) {
  const found = read().find((run) => run.key === key && run.made === made)
  return found ? { ...found, reports: found.reports.map(unpack), error: null, earlier: true } : null
}

const read = () => JSON.parse(localStorage.getItem(KEY) ?? "[]")

function write(runs) {
  let text = JSON.stringify(runs)
  while (text.length > LIMIT) {
    runs.shift()
    text = JSON.stringify(runs)
  }
  try {
    localStorage.setItem(KEY, text)
  } catch {
    // The browser's storage is full of other things, ComfyUI's own drafts first of all.
    localStorage.removeItem(KEY)
  }
}
