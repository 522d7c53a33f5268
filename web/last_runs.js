// The reports of earlier runs, for after a reload. They stay in the browser: a run does not change
// the workflow, nor what is embedded in the pictures it makes.
import { pack, unpack } from "./report.js"

const KEY = "graphquant.lastRuns"
// In characters, of the few million that a browser gives to all of ComfyUI.
const LIMIT = 500_000

/** Where a node is: its graph, and its id there. */
export const placeOf = (node) => `${node.graph.id}:${node.id}`

/** Keep a node's reports, newest workflow last; the oldest go where there are too many. */
export function remember(node, reports) {
  const id = node.graph.rootGraph.id
  const workflows = read()
  const at = workflows.findIndex(([each]) => each === id)
  const [, nodes] = at < 0 ? [id, {}] : workflows.splice(at, 1)[0]
  workflows.push([id, { ...nodes, [placeOf(node)]: reports.map(pack) }])
  write(workflows)
}

/** The reports of that node's latest run in this browser, or none. */
export function recall(node) {
  const [, nodes] = read().find(([id]) => id === node.graph.rootGraph.id) ?? [null, {}]
  return (nodes[placeOf(node)] ?? []).map(unpack)
}

const read = () => JSON.parse(localStorage.getItem(KEY) ?? "[]")

function write(workflows) {
  let text = JSON.stringify(workflows)
  while (text.length > LIMIT) {
    workflows.shift()
    text = JSON.stringify(workflows)
  }
  try {
    localStorage.setItem(KEY, text)
  } catch {
    // The browser's storage is full of other things, ComfyUI's own drafts first of all.
    localStorage.removeItem(KEY)
  }
}
