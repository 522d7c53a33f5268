// GraphQuant in ComfyUI's editor: the panel on its nodes, their menu, the pack's settings.
import { api } from "../../scripts/api.js"
import { app } from "../../scripts/app.js"
import { loadCapabilities } from "./capabilities.js"
import { loadStyles } from "./dom.js"
import { menuItems } from "./menu.js"
import {
  attachPanel,
  followSight,
  refreshAll,
  showEarlierRuns,
  showPanels,
  startPanels,
} from "./node_panel.js"
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
    startPanels()
    // A file that was just saved is in the loaders' lists without a press of R.
    api.addEventListener("executed", ({ detail }) => {
      const verdicts = detail.output?.graphquant_verdict ?? []
      if (verdicts.some(({ key }) => key === "saved")) app.reloadNodeDefs()
    })
  },

  beforeRegisterNodeDef(_, { name, input }) {
    if (name !== "GQQuantizeModel") return
    // In place: the setting holds this array. Definitions come again when the user refreshes them.
    methods.splice(0, methods.length, ...comboOptions(input.required.method))
  },

  setup() {
    api.addEventListener("graphChanged", () => refreshAll())
    followSight()
  },

  // Only now do the nodes of a loaded workflow have their links.
  afterConfigureGraph: () => showEarlierRuns(),

  nodeCreated(node) {
    if (isOurs(node)) applyDefaultMethod(node)
    // A subgraph with a Quantize node in it shows that node's panel.
    if (isOurs(node) || node.isSubgraphNode?.()) attachPanel(node)
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
