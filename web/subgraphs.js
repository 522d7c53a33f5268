// Nodes within subgraphs: whose widgets count in a run, what feeds an input, and which node a
// subgraph's own panel is about.
import { instancesOf } from "./downstream.js"

/** The node that a panel on `node` is about: itself, or of a subgraph the first that quantizes. */
export function subjectOf(node) {
  if (!node.isSubgraphNode?.()) return node
  for (const inner of node.subgraph.nodes) {
    const found = inner.isSubgraphNode?.() ? subjectOf(inner) : inner
    if (found?.comfyClass.startsWith("GQQuantize") && widgetOf(found, "method")) return found
  }
  return null
}

export const widgetOf = (node, name) => node.widgets?.find((widget) => widget.name === name)

/** The value that a widget has in a run: its own, or where it is an input of the subgraph around
it, that of the subgraph's node. */
export function valueOf(node, name) {
  const own = widgetOf(node, name)?.value
  const link = linkOf(node, node.inputs?.find((input) => input.widget?.name === name))
  if (!link || !isEntry(node.graph, link)) return own
  const [outer] = instancesOf(node.graph)
  const slot = node.graph.inputNode.slots[link.origin_slot]
  return outer && widgetOf(outer, slot.name) ? valueOf(outer, slot.name) : own
}

/** The node that an input comes from, a subgraph's wall counting as no end; or null. */
export function originOf(node, input) {
  const link = linkOf(node, input)
  if (!link) return null
  if (!isEntry(node.graph, link)) return node.graph.getNodeById(link.origin_id)
  const [outer] = instancesOf(node.graph)
  return outer ? originOf(outer, outer.inputs[link.origin_slot]) : null
}

const linkOf = (node, input) => (input?.link != null ? node.graph.getLink(input.link) : null)
const isEntry = (graph, link) => graph.inputNode && link.origin_id === graph.inputNode.id
