// Reports of another workflow's run. The editor gives an output to whichever workflow is open when
// it arrives, and keeps it there: after a change of tabs in mid-run that is the wrong one.
import { app } from "../../scripts/app.js"
import { placeOf } from "./last_runs.js"

const misplaced = new Set()
const keyOf = (node, reports) => `${placeOf(node)} ${JSON.stringify(reports)}`

/** Whether reports that have just arrived at `node` are those of a run of another open workflow. */
export function arrivedElsewhere(node, reports) {
  const { openWorkflows, activeWorkflow } = app.extensionManager.workflow
  // A workflow's tracker has been given the outputs of its own runs by now.
  const ran = openWorkflows.find(({ changeTracker }) =>
    Object.values(changeTracker?.nodeOutputs ?? {}).some((out) => out?.graphquant === reports)
  )
  // While a tab is opened, its graph is there already and the last tab is still the active one.
  const id = activeWorkflow?.activeState?.id ?? node.graph.rootGraph.id
  if (!ran || (ran === activeWorkflow && id === node.graph.rootGraph.id)) return false
  misplaced.add(keyOf(node, reports))
  return true
}

/** Whether they are such reports, given back with the workflow that they do not belong to. */
export const isMisplaced = (node, reports) => misplaced.has(keyOf(node, reports))
