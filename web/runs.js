// What runs said, each with the inputs that made it. A message names its run; the server still has
// the workflow that the run was queued with, so that neither a change since nor another tab confuses
// what belongs to what.
import { api } from "../../scripts/api.js"
import { fingerprint, locate } from "./inputs.js"
import { recall, remember } from "./last_runs.js"

const NOTHING = { reports: [], verdicts: [], made: null, error: null, earlier: false }
const session = new Map()
const workflows = new Map()

/** Listen to the server; `changed` is called after each message that concerns a node of ours. */
export function followRuns(changed) {
  const listen = (event, then) =>
    api.addEventListener(event, async ({ detail }) => {
      const place = then && (await placeIn(detail.prompt_id, detail.display_node ?? detail.node_id))
      if (place) changed(then(place, detail))
    })
  listen("executed", ({ key, made }, { output }) => {
    if (!output?.graphquant && !output?.graphquant_verdict) return null
    const [reports, verdicts] = [output.graphquant ?? [], output.graphquant_verdict ?? []]
    session.set(key, { reports, verdicts, made, error: null, earlier: false })
    remember(key, { reports, verdicts, made })
    return key
  })
  listen("execution_error", ({ key, made }, { exception_message }) => {
    const [sentence] = String(exception_message).trim().split("\n")
    session.set(key, { ...(session.get(key) ?? NOTHING), error: { sentence, made } })
    return key
  })
  api.addEventListener("execution_start", ({ detail }) => workflowOf(detail.prompt_id))
}

/** What is known of the node at `key`, whose inputs are now `made`: this session's run, or an
earlier one with these very inputs. */
export const runAt = (key, made) => session.get(key) ?? recall(key, made) ?? NOTHING

/** A workflow was loaded whose node at `key` has the inputs `made`: what other inputs gave goes. */
export function forgetOthers(key, made) {
  if (session.get(key)?.made !== made) session.delete(key)
}

/** Where the workflow's node with this execution id is, and what made it: {key, made}. */
async function placeIn(promptId, executionId) {
  const workflow = await workflowOf(promptId)
  const found = workflow && locate(workflow, executionId)
  if (!found?.node.type.startsWith("GQ")) return null
  const { graph, node } = found
  return { key: keyOf(workflow.id, graph.id, node.id), made: fingerprint(workflow, graph, node) }
}

/** A node's place: its workflow, its graph, and its id there. */
export const keyOf = (workflow, graph, node) => `${workflow}/${graph}:${node}`

/** The workflow that a run was queued with, or null where it came without one. */
function workflowOf(promptId) {
  if (!workflows.has(promptId)) {
    // Only the latest are asked for again.
    if (workflows.size > 8) workflows.delete(workflows.keys().next().value)
    workflows.set(promptId, fetchWorkflow(promptId))
  }
  return workflows.get(promptId)
}

async function fetchWorkflow(promptId) {
  const { queue_running } = await (await api.fetchApi("/queue")).json()
  let item = queue_running.find(([, id]) => id === promptId)
  // A short run is over before its first message is read.
  item ??= (await (await api.fetchApi(`/history/${promptId}`)).json())[promptId]?.prompt
  return item?.[3]?.extra_pnginfo?.workflow ?? null
}
