"""JavaScript that the editor's page runs for ``lab.editor``."""

READY = """() => window.app?.extensionManager?.setting && document.querySelector("#graph-canvas") &&
    window.LiteGraph?.registered_node_types.GQQuantizeModel && window.app.vueAppReady &&
    !document.querySelector("#splash-loader")"""


# A promise in the page may never settle; Playwright itself would wait for it without end.
BOUNDED = """([given, seconds]) => Promise.race([
    (%s)(given),
    new Promise((_, fail) => {
        setTimeout(() => fail(new Error(`no answer within ${seconds} s`)), seconds * 1000)
    }),
])"""
# The canvas moves and the nodes are laid out frame by frame: still for this many, and it is done.
SETTLED = """async () => {
    const look = () => JSON.stringify([
        app.canvas.ds.scale, ...app.canvas.ds.offset,
        app.graph.nodes.map((node) => [...node.pos, ...node.size]),
        document.querySelectorAll("[data-node-id]").length,
    ])
    let [seen, still] = ["", 0]
    while (still < 12) {
        await new Promise(requestAnimationFrame)
        const now = look()
        still = now === seen ? still + 1 : 0
        seen = now
    }
}"""
# The editor's own command is an animation, which a later look at one node would have to outwait.
FIT = """() => {
    const boxes = app.graph.nodes.map(({ boundingRect: [x, y, width, height] }) =>
        [x, y, x + width, y + height])
    const edge = (side, most) => most(...boxes.map((box) => box[side]))
    const [left, top] = [edge(0, Math.min), edge(1, Math.min)]
    app.canvas.ds.fitToBounds([left, top, edge(2, Math.max) - left, edge(3, Math.max) - top])
    app.canvas.setDirty(true, true)
}"""
DRAFT_KEPT = """() => {
    const nodes = JSON.stringify(app.rootGraph.serialize().nodes)
    return Object.entries(localStorage).some(([key, text]) =>
        key.startsWith("Comfy.Workflow.Draft.v2:") &&
        JSON.stringify(JSON.parse(JSON.parse(text).data).nodes) === nodes)
}"""

SAVED = """(name) => {
    const { filename, isPersisted, isModified } = app.extensionManager.workflow.activeWorkflow
    return isPersisted && !isModified && (!name || filename === name)
}"""
