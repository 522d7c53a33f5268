// Which nodes a MODEL flows into, through reroutes and in and out of subgraphs.

const [NEVER, BYPASS] = [2, 4]
const CARRIES_MODEL = new Set(["MODEL", "*"])

/** The torch.compile nodes after `node` that would run, as {title, mode}. */
export function compileNodesAfter(node) {
  return nodesAfter(node)
    .filter((other) => /TorchCompile/.test(other.type) && other.mode !== BYPASS)
    .map((other) => ({ title: other.title, mode: compileMode(other) }))
}

function compileMode(node) {
  const value = (name) => node.widgets?.find((widget) => widget.name === name)?.value
  // The cudagraphs backend captures the graph, as the inductor's reduce-overhead mode does.
  return value("backend") === "cudagraphs" ? "reduce-overhead" : (value("mode") ?? "default")
}

function nodesAfter(start) {
  const seen = new Set()
  const open = [start]
  while (open.length) {
    for (const next of targets(open.pop())) {
      if (seen.has(next) || next.mode === NEVER) continue
      seen.add(next)
      open.push(next)
    }
  }
  return [...seen]
}

function targets(node) {
  return (node.outputs ?? [])
    .filter((output) => CARRIES_MODEL.has(output.type))
    .flatMap((output) => follow(node.graph, output.links ?? []))
}

/** The nodes at the far end of these links, a subgraph's wall counting as no end. */
function follow(graph, linkIds) {
  return [...linkIds].flatMap((id) => {
    const link = graph.getLink(id)
    if (!link) return []
    if (link.target_id === graph.outputNode?.id) {
      return instancesOf(graph).flatMap((outer) =>
        follow(outer.graph, outer.outputs[link.target_slot]?.links ?? [])
      )
    }
    const target = graph.getNodeById(link.target_id)
    if (!target) return []
    if (!target.isSubgraphNode?.()) return [target]
    const entry = target.subgraph.inputNode.slots[link.target_slot]
    return follow(target.subgraph, entry?.linkIds ?? [])
  })
}

/** The nodes that stand for a subgraph, in whichever graph. */
export function instancesOf(subgraph) {
  const root = subgraph.rootGraph
  return [root, ...root.subgraphs.values()].flatMap((graph) =>
    graph.nodes.filter((node) => node.subgraph === subgraph)
  )
}
