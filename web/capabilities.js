// What the methods are on the server's machine, asked once.
import { api } from "../../scripts/api.js"
import { t } from "./words.js"

let machine = { methods: {} }

export async function loadCapabilities() {
  const answer = await api.fetchApi("/graphquant/capabilities")
  if (answer.ok) machine = await answer.json()
}

/** The method that "auto" means in Quantize Model, or the method itself. */
export const resolveAuto = (method) => (method === "auto" ? machine.recommended : method)

/** A dropdown value with a word on what it does here; the value itself stays as it is. */
export function methodLabel(method, knowsAuto) {
  if (method === "auto" && knowsAuto && machine.recommended)
    return t("autoLabel", { method, chosen: machine.recommended })
  const found = machine.methods[method]
  if (!found || found.native) return method
  return t("fallbackLabel", { method, runs_as: found.runs_as })
}

/** In a sentence: why the method does not run as itself here. */
export function fallbackNote(method) {
  const found = machine.methods[method]
  if (!found || found.native) return null
  return t("fallbackNote", { method, runs_as: found.runs_as, device: machine.device })
}

export function compileWarning(method, mode) {
  return machine.methods[method]?.compile[mode] ?? null
}
