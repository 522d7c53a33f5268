// What the chosen method would make of the file upstream, before anything is loaded.
import { api } from "../../scripts/api.js"
import { originOf, valueOf } from "./subgraphs.js"

// Widgets that name a file, and ComfyUI's folder that it is in.
const FOLDERS = {
  unet_name: "diffusion_models",
  ckpt_name: "checkpoints",
  clip_name: "text_encoders",
  vae_name: "vae",
}
const COMPONENTS = {
  GQQuantizeModel: "transformer",
  GQQuantizeTextEncoder: "encoder",
  GQQuantizeVAE: "vae",
}
const asked = new Map()

/** {before, after} in bytes for a Quantize node, or null: no file upstream, no answer yet,
or no estimate. `arrived` is called once when the server's answer comes. */
export function estimateFor(node, method, arrived) {
  const component = COMPONENTS[node.comfyClass]
  const file = component && method && fileBefore(node)
  if (!file) return null
  const key = `folder=${file.folder}&name=${encodeURIComponent(file.name)}&component=${component}`
  if (!asked.has(key)) {
    asked.set(key, null)
    ask(key).then((sizes) => asked.set(key, sizes) && arrived())
  }
  const found = asked.get(key)?.methods.find((each) => each.method === method)
  return found && !found.problem ? { before: asked.get(key).nbytes, after: found.nbytes } : null
}

async function ask(key) {
  const answer = await api.fetchApi(`/graphquant/estimate?${key}`)
  return answer.ok ? await answer.json() : { methods: [] }
}

/** The file of the loader that a node's first input comes from, through nodes of one such input. */
function fileBefore(node) {
  for (let at = origin(node), steps = 0; at && steps < 50; at = origin(at), steps++) {
    const named = at.widgets?.find(({ name }) => name in FOLDERS)
    if (named) return { folder: FOLDERS[named.name], name: String(valueOf(at, named.name)) }
  }
  return null
}

const origin = (node) =>
  originOf(
    node,
    node.inputs?.find(({ link, widget }) => link != null && !widget)
  )
