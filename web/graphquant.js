// GraphQuant in ComfyUI's editor: the panel on its nodes, their menu, the pack's settings.
import { api } from "../../scripts/api.js"
import { app } from "../../scripts/app.js"
import { loadCapabilities } from "./capabilities.js"
import { loadStyles } from "./dom.js"
import { menuItems } from "./menu.js"
import { isMisplaced } from "./misplaced.js"
import { attachPanel, refreshAll, showEarlierRuns, showPanels, showRun } from "./node_panel.js"
import { loadWords } from "./words.js"

const isOurs = (node) => node?.comfyClass?.startsWith("GQ")
const methods = []

app.registerExtension({
  name: "graphquant.panel",

  settings: [
    {
      id: "graphquant.panel",
      name: "Show the report panel on nodes",
      category: ["GraphQuant", "Nodes", "Panel"],
      type: "boolean",
      defaultValue: true,
      onChange: showPanels,
    },
    {
      id: "graphquant.defaultMethod",
      name: "Method of new Quantize nodes",
      category: ["GraphQuant", "Nodes", "Method"],
      type: "combo",
      options: methods,
      defaultValue: "auto",
    },
  ],

  async init() {
    loadStyles()
    // Not awaited: trying out the methods can take the server a moment after its start.
    loadCapabilities().then(() => {
      refreshAll()
      app.canvas?.setDirty(true, true)
    })
    await loadWords()
  },

  beforeRegisterNodeDef(_, { name, input }) {
    if (name !== "GQQuantizeModel") return
    // In place: the setting holds this array. Definitions come again when the user refreshes them.
    methods.splice(0, methods.length, ...comboOptions(input.required.method))
  },

  setup() {
    api.addEventListener("graphChanged", refreshAll)
  },

  // Only now do the nodes of a loaded workflow have their links.
  afterConfigureGraph: showEarlierRuns,

  nodeCreated(node) {
    if (!isOurs(node)) return
    applyDefaultMethod(node)
    attachPanel(node)
  },

  // The editor gives the outputs of this session back when a workflow's tab is opened again.
  onNodeOutputsUpdated(outputs) {
    for (const [locator, output] of Object.entries(outputs)) {
      const node = output?.graphquant && nodeAt(locator)
      if (isOurs(node) && !isMisplaced(node, output.graphquant)) showRun(node, output.graphquant)
    }
  },

  getNodeMenuItems: (node) => (isOurs(node) ? menuItems(node) : []),
})

/** A new node starts with the setting's method; a loaded one gets its own right afterwards. */
function applyDefaultMethod(node) {
  const wanted = app.extensionManager.setting.get("graphquant.defaultMethod")
  const widget = node.widgets?.find(({ name }) => name === "method")
  if (wanted !== "auto" && widget?.options.values?.includes(wanted)) widget.value = wanted
}

/** A combo's choices, from either way in which ComfyUI describes one. */
function comboOptions([kind, options]) {
  return Array.isArray(kind) ? kind : options.options
}

/** locator: "node id", or "subgraph id:node id". */
function nodeAt(locator) {
  const parts = locator.split(":")
  const id = parts.pop()
  const graph = parts.length ? app.rootGraph.subgraphs.get(parts[0]) : app.rootGraph
  return graph?.getNodeById(id)
}
