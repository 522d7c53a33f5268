// What the methods are on the server's machine, asked once.
import { api } from "../../scripts/api.js"
import { said } from "./said.js"
import { t } from "./words.js"

let machine = { methods: {} }

export async function loadCapabilities() {
  const answer = await api.fetchApi("/graphquant/capabilities")
  if (answer.ok) machine = await answer.json()
}

/** The method that a Quantize Model's dropdown value means here. */
export const resolveAuto = (method) => (method === "auto" ? machine.recommended : method)

/** A dropdown value with a word on what it does here; the value itself stays as it is. */
export function methodLabel(method, kind, compute) {
  if (method === "auto" && kind === "GQQuantizeModel" && machine.recommended)
    return t("autoLabel", { method, chosen: machine.recommended })
  const { status, runs_as } = here(method, kind, compute)
  return status === "native" ? method : t(`${status}Label`, { method, runs_as })
}

/** In a sentence: what the method is here, if not what its name says. */
export function methodNote(method, kind, compute) {
  const { status, runs_as, reason, remedy } = here(method, kind, compute)
  if (status === "native") return reason ? inWords(method, reason, remedy) : null
  if (status === "encoder") return t("encoderNote", { method, runs_as })
  if (status === "fallback") return t("fallbackNote", { method, runs_as, device: machine.device })
  return inWords(method, reason, remedy)
}

const inWords = (method, reason, remedy) => `${method}: ${said(reason)} ${said(remedy)}`

/** status: native, emulated, fallback, refused, or encoder for what a text encoder makes of it.
compute: "quantized" where a text encoder multiplies in what the method rounds to. */
function here(method, kind, compute) {
  const found = machine.methods[method] ?? { status: "native" }
  const key = compute === "quantized" ? "in_quantized_encoder" : "in_text_encoder"
  const inEncoder = kind === "GQQuantizeTextEncoder" && found[key]
  if (!inEncoder) return found
  if (inEncoder !== method) return { status: "encoder", runs_as: inEncoder }
  return found
}

/** Whether an input does nothing for what the method runs as here; false where that is unknown. */
export function ignores(method, input, kind, compute) {
  const serves = machine.only_for?.[input]
  const { status, runs_as } = here(method, kind, compute)
  const running = status === "encoder" || status === "fallback" ? runs_as : method
  return serves !== undefined && !serves.includes(running)
}

/** The inputs of Quantize nodes that serve some methods alone. */
export const inputsOfSomeMethods = () => Object.keys(machine.only_for ?? {})

/** Whether the method does not run without a calibration. */
export const needsCalibration = (method) => machine.need_calibration?.includes(method) ?? false

/** What torch.compile in this mode does to the method, or null. */
export function compileWarning(method, mode) {
  const warning = machine.methods[method]?.compile[mode]
  return warning ? said(warning) : null
}
