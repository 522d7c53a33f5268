// A node's help page, from web/docs, in the editor's language where there is one.
import { app } from "../../scripts/app.js"
import { element, openDialog } from "./dom.js"
import { t } from "./words.js"

const DOCS = new URL("./docs/", import.meta.url)

export async function openHelp(node) {
  const markdown = (await helpPage(node.comfyClass)) ?? node.constructor.nodeData.description
  const page = element("div", "help")
  // The editor's own renderer, which sanitizes.
  page.innerHTML = app.extensionManager.renderMarkdownToHtml(markdown, DOCS.href)
  openDialog(node.constructor.nodeData.display_name, t("close"), page)
}

async function helpPage(id) {
  const language = app.extensionManager.setting.get("Comfy.Locale")
  for (const path of [`${id}/${language}.md`, `${id}.md`]) {
    const answer = await fetch(new URL(path, DOCS))
    if (answer.ok) return answer.text()
  }
  return null
}
