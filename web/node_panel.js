// One panel a node: when it is there, what it shows, and how tall it is.
import { app } from "../../scripts/app.js"
import { methodLabel } from "./capabilities.js"
import { element } from "./dom.js"
import { estimateFor } from "./estimates.js"
import { fingerprint, graphOf, nodeOf } from "./inputs.js"
import { chosenMethod, notesFor } from "./notes.js"
import { panelContent } from "./panel.js"
import { followRuns, forgetOthers, keyOf, runAt } from "./runs.js"
import { subjectOf } from "./subgraphs.js"

const WIDGET = "graphquant"
const MARGIN = 10
// This one has no result of its own: its words are in the report of the node that it goes to.
const WITHOUT_PANEL = new Set(["GQQuantizationConfig"])

const [NEVER, BYPASS] = [2, 4]
// Everything the pack keeps about nodes on the canvas, its own and subgraphs: {shown, widget}.
const panels = new Map()
let wanted = true

/** What is known of a node's last run, and whether its inputs are still those: {..., stale}. */
export function lastRun(node, workflow = openWorkflow()) {
  const graph = workflow && node.graph && graphOf(workflow, node.graph.id)
  const saved = nodeOf(graph, node.id)
  if (!saved) return { reports: [], verdicts: [], error: null, earlier: false, stale: false }
  const made = fingerprint(workflow, graph, saved)
  const run = runAt(placeOf(node), made)
  const error = run.error?.made === made ? run.error.sentence : null
  return { ...run, error, stale: run.made !== null && run.made !== made }
}

/** Watch a new node of ours or a subgraph: the inputs that its result and its notes depend on. */
export function attachPanel(node) {
  if (WITHOUT_PANEL.has(node.comfyClass)) return
  const panel = { shown: "", widget: null }
  panels.set(node, panel)
  if (node.isSubgraphNode?.()) holdOwnWidget(node, panel)
  after(node, "onRemoved", () => panels.delete(node))
  after(node, "onConnectionsChange", () => soon())
  for (const widget of node.widgets ?? []) {
    after(widget, "callback", () => soon())
    if (widget.name === "method") labelMethods(node, widget)
  }
  soon()
}

/** Show what runs say from now on. */
export function startPanels() {
  followRuns(() => refreshAll())
}

/** Another graph is in sight: a subgraph, or the one around it. */
export function followSight() {
  app.canvas.canvas.addEventListener("litegraph:set-graph", soon)
}

/** A workflow was loaded: its nodes show their own runs, or none. */
export function showEarlierRuns() {
  const workflow = openWorkflow()
  for (const node of [...panels.keys()].filter((each) => subjectOf(each) === each)) {
    const graph = node.graph && graphOf(workflow, node.graph.id)
    const saved = nodeOf(graph, node.id)
    if (saved) forgetOthers(placeOf(node), fingerprint(workflow, graph, saved))
  }
  refreshAll(workflow)
}

/** Panels on or off, as the setting says. */
export function showPanels(value) {
  wanted = value
  refreshAll()
}

export function refreshAll(workflow = openWorkflow()) {
  for (const node of panels.keys()) refresh(node, workflow)
}

const openWorkflow = () => app.rootGraph?.serialize()
const placeOf = ({ graph, id }) => keyOf(graph.rootGraph.id, graph.id, id)

let waiting = false

/** After what the editor is doing now, however many nodes and widgets it touches. */
function soon() {
  if (waiting) return
  waiting = true
  setTimeout(() => {
    waiting = false
    refreshAll()
  })
}

function refresh(node, workflow) {
  const panel = panels.get(node)
  if (!panel || !node.graph) return
  const subject = subjectOf(node)
  if (!wanted || !subject?.graph) return removeWidget(node, panel)
  const run = lastRun(subject, workflow)
  const notes = notesFor(subject, run.stale ? [] : run.reports, run.reports)
  panel.widget ??= addWidget(node)
  const chosen = chosenMethod(subject)
  const estimate = estimateFor(subject, chosen, soon)
  // Nodes 2.0 fades what lies on a node that is off with the node itself.
  const off = !LiteGraph.vueNodesMode && (node.mode === NEVER || node.mode === BYPASS)
  panel.widget.element.toggleAttribute("data-off", off)
  if (LiteGraph.vueNodesMode && node.isSubgraphNode?.()) standIn(node, panel.widget.element)
  const language = app.extensionManager.setting.get("Comfy.Locale")
  const key = JSON.stringify([notes, run, chosen, estimate, language])
  if (key === panel.shown) return
  panel.shown = key
  panel.widget.element.firstChild.replaceChildren(...panelContent(node, run, chosen, notes, estimate))
}

function addWidget(node) {
  const content = element("div", "content")
  if (node.widgets?.some(({ name }) => name === "method")) content.dataset.roomy = "true"
  const root = element("div", "panel", content)
  root.dataset.node = node.id
  // Nodes 2.0 lets the wheel scroll in here, and not zoom the canvas, once this has the focus.
  root.dataset.captureWheel = "true"
  root.tabIndex = -1
  let height = 0
  const getHeight = () => height + 2 * MARGIN
  const options = { serialize: false, hideOnZoom: false, hideInPanel: true, margin: MARGIN }
  const widget = node.addDOMWidget(WIDGET, "graphquant", root, {
    ...options,
    getMinHeight: getHeight,
    getMaxHeight: getHeight,
  })
  // The option alone does not keep it out of widgets_values.
  widget.serialize = false
  widget.observer = new ResizeObserver(() => {
    if (content.offsetHeight === 0 || content.offsetHeight === height) return
    height = content.offsetHeight
    growToFit(node)
  })
  widget.observer.observe(content)
  return widget
}

/** The classic renderer keeps a node's size; Nodes 2.0 lays it out by itself. */
function growToFit(node) {
  const [width, height] = node.size
  const needed = node.computeSize()[1]
  if (!LiteGraph.vueNodesMode && needed > height) node.setSize([width, needed])
  node.graph?.setDirtyCanvas(true, true)
}

function removeWidget(node, panel) {
  const { widget } = panel
  if (!widget) return
  widget.observer.disconnect()
  Object.assign(panel, { widget: null, shown: "" })
  if (node.isSubgraphNode?.()) widget.onRemove?.()
  else node.removeWidget(widget)
}

/** Nodes 2.0 shows no widget on a subgraph's node but the promoted ones: there the panel stands in
the node's body, as soon as that is drawn. */
function standIn(node, panel, patience = 60) {
  if (node.graph !== app.canvas.graph) return
  const body = document.querySelector(`[data-testid="node-body-${node.id}"]`)
  if (body && panel.parentElement !== body) body.append(panel)
  else if (!body && patience) requestAnimationFrame(() => standIn(node, panel, patience - 1))
}

/** A subgraph's node has the widgets that were promoted, and no list of its own: the panel's
comes after them. */
function holdOwnWidget(node, panel) {
  const promoted = Object.getOwnPropertyDescriptor(node, "widgets")
  if (!promoted?.get) return
  const get = () => [...promoted.get.call(node), ...(panel.widget ? [panel.widget] : [])]
  Object.defineProperty(node, "widgets", { ...promoted, get })
}

/** The dropdown says in words what does not run natively; its values stay as they are. */
function labelMethods(node, widget) {
  const compute = () => node.widgets.find(({ name }) => name === "compute")?.value
  widget.options.getOptionLabel = (method) =>
    methodLabel(method ?? "", node.comfyClass, compute())
}

/** Call `then` after whatever `object[name]` does now. */
function after(object, name, then) {
  const before = object[name]
  object[name] = function (...given) {
    const result = before?.apply(this, given)
    then(...given)
    return result
  }
}
