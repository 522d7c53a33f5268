// The panel's words, from the pack's own locales/<language>/main.json, which ComfyUI serves.
import { api } from "../../scripts/api.js"
import { app } from "../../scripts/app.js"

let languages = {}

export async function loadWords() {
  languages = await (await api.fetchApi("/i18n")).json()
}

/** The text called `key` in the editor's language, else in English, its {names} filled in. */
export function t(key, values = {}) {
  const language = app.extensionManager.setting.get("Comfy.Locale")
  const text = languages[language]?.graphquant?.[key] ?? languages.en?.graphquant?.[key] ?? key
  return text.replace(/\{(\w+)\}/g, (whole, name) => values[name] ?? whole)
}

/** The keys of the English words that begin so. */
export const templates = (prefix) =>
  Object.keys(languages.en?.graphquant ?? {}).filter((key) => key.startsWith(prefix))

/** The English text called `key`, its {names} as they are. */
export const template = (key) => languages.en.graphquant[key]
