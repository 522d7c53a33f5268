// What a node's result depends on, read off a workflow as the editor writes it: the graph that is
// open now and the one that a run was queued with are compared by the same words.

const [INPUT, OUTPUT, NEVER, BYPASS] = [-10, -20, 2, 4]
const PASSES_ON = new Set(["Reroute"])

/** The graph called `id` of a workflow: the workflow itself, or one of its subgraphs. */
export function graphOf(workflow, id) {
  if (workflow.id === id) return workflow
  return subgraphs(workflow).find((graph) => graph.id === id)
}

/** A graph's node by its id, which is a number or a text. */
export const nodeOf = (graph, id) => graph?.nodes.find((each) => String(each.id) === String(id))

/** Where an execution id (1, or 7:1 within the subgraph of node 7) is: {graph, node}, or null. */
export function locate(workflow, executionId) {
  const ids = String(executionId).split(":")
  let [graph, node] = [workflow, null]
  for (const [depth, id] of ids.entries()) {
    if (depth) graph = subgraphs(workflow).find((each) => each.id === node.type)
    node = nodeOf(graph, id)
    if (!node) return null
  }
  return { graph, node }
}

/** A text that changes with the node's own widgets and with all that its inputs come from. */
export function fingerprint(workflow, graph, node) {
  const entries = []
  const names = new Map()
  name({ graph, node })
  return hash(JSON.stringify(entries))

  /** The place of a node among the entries; its own entry is written when first met. */
  function name({ graph, node }) {
    const key = `${graph.id}:${node.id}`
    if (names.has(key)) return names.get(key)
    const place = names.set(key, names.size).get(key)
    const inputs = (node.inputs ?? []).map((input, slot) => [
      input.name,
      origins(workflow, graph, node, slot).map(({ slot, ...from }) => [name(from), slot]),
    ])
    const mode = node.mode === NEVER || node.mode === BYPASS ? node.mode : 0
    const linked = inputs.filter(([, from]) => from.length)
    entries[place] = [node.type, mode, values(node.widgets_values), linked]
    return place
  }
}

/** Widget values alone: a seed's "randomize" says what comes next, not what was. */
function values(given) {
  const control = new Set(["fixed", "increment", "decrement", "randomize"])
  return Array.isArray(given) ? given.filter((value) => !control.has(value)) : (given ?? [])
}

const subgraphs = (workflow) => workflow.definitions?.subgraphs ?? []

/** The nodes and their output slots that feed an input, the walls of subgraphs counting as none. */
function origins(workflow, graph, node, slot) {
  const id = node.inputs[slot].link
  return id == null ? [] : endsOf(workflow, graph, linkOf(graph, id))
}

function endsOf(workflow, graph, link) {
  if (!link) return []
  if (link.origin === INPUT) {
    return instances(workflow, graph).flatMap(({ graph, node }) =>
      node.inputs?.[link.slot] ? origins(workflow, graph, node, link.slot) : []
    )
  }
  const node = nodeOf(graph, link.origin)
  if (!node) return []
  if (PASSES_ON.has(node.type)) return origins(workflow, graph, node, 0)
  const inside = subgraphs(workflow).find((each) => each.id === node.type)
  if (!inside) return [{ graph, node, slot: link.slot }]
  const leaving = (inside.links ?? []).map(asLink)
  const last = leaving.find((each) => each.target === OUTPUT && each.targetSlot === link.slot)
  // The outer node's own widgets are inputs of the nodes within.
  return [{ graph, node, slot: link.slot }, ...endsOf(workflow, inside, last)]
}

const linkOf = (graph, id) => (graph.links ?? []).map(asLink).find((link) => link.id === id)

/** A link of a workflow, which is an array at the top and an object in a subgraph. */
function asLink(link) {
  const [id, origin, slot, target, targetSlot] = Array.isArray(link)
    ? link
    : [link.id, link.origin_id, link.origin_slot, link.target_id, link.target_slot]
  return { id, origin, slot, target, targetSlot }
}

function instances(workflow, subgraph) {
  return [workflow, ...subgraphs(workflow)].flatMap((graph) =>
    graph.nodes.filter((node) => node.type === subgraph.id).map((node) => ({ graph, node }))
  )
}

/** 53 bits of a text, as hexadecimal digits (cyrb53's mixing). */
function hash(text) {
  let [high, low] = [0xdeadbeef, 0x41c6ce57]
  for (let at = 0; at < text.length; at++) {
    const code = text.charCodeAt(at)
    high = Math.imul(high ^ code, 2654435761)
    low = Math.imul(low ^ code, 1597334677)
  }
  high = Math.imul(high ^ (high >>> 16), 2246822507) ^ Math.imul(low ^ (low >>> 13), 3266489909)
  low = Math.imul(low ^ (low >>> 16), 2246822507) ^ Math.imul(high ^ (high >>> 13), 3266489909)
  return (4294967296 * (2097151 & low) + (high >>> 0)).toString(16)
}
