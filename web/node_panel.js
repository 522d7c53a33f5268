// One panel a node: when it is there, what it remembers, and how tall it is.
import { methodLabel } from "./capabilities.js"
import { element } from "./dom.js"
import { recall, remember } from "./last_runs.js"
import { arrivedElsewhere } from "./misplaced.js"
import { notesFor } from "./notes.js"
import { panelContent } from "./panel.js"

const WIDGET = "graphquant"
const MARGIN = 10

// Everything the pack keeps about its nodes on the canvas.
const panels = new Map()
let wanted = true

/** What is known of a node's last run. reports: none before the first. earlier: it was before the
page was loaded. */
export const lastRun = (node) => panels.get(node)?.run ?? { reports: [], earlier: false }

/** Watch a new node: its runs, and the inputs that its notes speak of. */
export function attachPanel(node) {
  panels.set(node, { run: { reports: [], earlier: false }, shown: "", widget: null })
  after(node, "onExecuted", ({ graphquant }) => {
    if (graphquant && !arrivedElsewhere(node, graphquant)) showRun(node, graphquant)
  })
  after(node, "onConfigure", () => refresh(node))
  after(node, "onRemoved", () => panels.delete(node))
  for (const widget of node.widgets ?? []) {
    after(widget, "callback", () => refresh(node))
    if (widget.name === "method") labelMethods(node, widget)
  }
}

/** The reports of a run that has just ended, or is the latest of this session. */
export function showRun(node, reports) {
  panels.get(node).run = { reports, earlier: false }
  remember(node, reports)
  refresh(node)
}

/** A workflow was loaded: its nodes get back what they showed when they last ran. */
export function showEarlierRuns() {
  for (const [node, panel] of panels) {
    if (!node.graph || panel.run.reports.length) continue
    panel.run = { reports: recall(node), earlier: true }
  }
  refreshAll()
}

/** Panels on or off, as the setting says. */
export function showPanels(value) {
  wanted = value
  refreshAll()
}

export function refreshAll() {
  for (const node of panels.keys()) refresh(node)
}

function refresh(node) {
  const panel = panels.get(node)
  if (!panel || !node.graph) return
  const notes = notesFor(node, panel.run.reports)
  const empty = !panel.run.reports.length && !notes.length
  if (!wanted || empty) return removeWidget(node, panel)
  panel.widget ??= addWidget(node)
  const key = JSON.stringify([notes, panel.run])
  if (key === panel.shown) return
  panel.shown = key
  panel.widget.element.firstChild.replaceChildren(...panelContent(node, panel.run, notes))
}

function addWidget(node) {
  const content = element("div", "content")
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
  if (!panel.widget) return
  panel.widget.observer.disconnect()
  node.removeWidget(panel.widget)
  Object.assign(panel, { widget: null, shown: "" })
}

/** The dropdown says in words what does not run natively; its values stay as they are. */
function labelMethods(node, widget) {
  widget.options.getOptionLabel = (method) => methodLabel(method ?? "", node.comfyClass)
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
