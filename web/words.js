// The panel's words, from the pack's own locales/<language>/main.json, which ComfyUI serves.
import { api } from "../../scripts/api.js"
import { app } from "../../scripts/app.js"

let languages = {}
const NONE = {}

export async function loadWords() {
  languages = await (await api.fetchApi("/i18n")).json()
}

const language = () => languages[app.extensionManager.setting.get("Comfy.Locale")]

/** The text called `key` in the editor's language, else in English, else `missing`, its {names}
filled in. */
export function t(key, values = {}, missing = key) {
  const text = language()?.graphquant?.[key] ?? languages.en?.graphquant?.[key] ?? missing
  return text.replace(/\{(\w+)\}/g, (whole, name) => values[name] ?? whole)
}

/** A word of the server's, such as what a layer is, in the editor's language. */
export const word = (name) => (name ? t(`word_${name}`, {}, name) : "")

/** The translations of the server's English sentences; the same object until the language changes. */
export const sentences = () => language()?.graphquant_said ?? NONE
