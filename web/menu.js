// The right-click menu of a Quantize node.
import { app } from "../../scripts/app.js"
import { attach } from "./dom.js"
import { openHelp } from "./help.js"
import { lastRun } from "./node_panel.js"
import { t } from "./words.js"

export function menuItems(node) {
  const { reports } = lastRun(node)
  const help = { content: t("openHelp"), callback: () => openHelp(node) }
  if (!reports.length) return [null, help]
  const text = reports.map((report) => report.text ?? "").join("\n\n")
  return [
    null,
    ...(text.trim() ? [{ content: t("copyReport"), callback: () => copy(text) }] : []),
    { content: t("saveReport"), callback: () => saveReport(node.title, reports) },
    help,
  ]
}

async function copy(text) {
  // Browsers give a page that is not served over HTTPS or from this machine no clipboard.
  if (navigator.clipboard) await navigator.clipboard.writeText(text)
  else copyBySelection(text)
  app.extensionManager.toast.add({ severity: "success", summary: t("copied"), life: 2000 })
}

function copyBySelection(text) {
  const area = document.createElement("textarea")
  area.value = text
  attach(area)
  area.select()
  document.execCommand("copy")
  area.remove()
}

function saveReport(title, reports) {
  const content = JSON.stringify(reports, null, 2)
  const link = document.createElement("a")
  link.href = URL.createObjectURL(new Blob([content], { type: "application/json" }))
  link.download = `${title.replace(/[^\w-]+/g, "-")}-report.json`
  link.click()
  URL.revokeObjectURL(link.href)
}
