// Elements from text alone: whatever a report says, it is never read as HTML.
import { app } from "../../scripts/app.js"

/** An element of the pack's own class; children are elements or texts. */
export function element(tag, name, ...children) {
  const made = document.createElement(tag)
  made.className = `graphquant-${name}`
  made.append(...children.filter((child) => child !== null))
  return made
}

/** A button that does not let the canvas below it see the click. */
export function button(name, text, onClick) {
  const made = element("button", name, text)
  made.type = "button"
  made.addEventListener("click", (event) => {
    event.stopPropagation()
    onClick()
  })
  return made
}

/** Add an element to the page: beside the canvas, as the body and the head belong to every pack. */
export const attach = (made) => app.canvas.canvas.parentElement.append(made)

/** Show a modal dialog with a title and a close button; it removes itself when closed. */
export function openDialog(title, closeWord, ...content) {
  const heading = element("h2", "title", title)
  const close = button("close", closeWord, () => dialog.close())
  const dialog = element("dialog", "dialog", element("header", "header", heading, close), ...content)
  dialog.addEventListener("close", () => dialog.remove())
  // The editor's one-letter shortcuts listen further out.
  dialog.addEventListener("keydown", (event) => event.stopPropagation())
  attach(dialog)
  dialog.showModal()
  return dialog
}

export function loadStyles() {
  const link = document.createElement("link")
  link.rel = "stylesheet"
  link.href = new URL("./graphquant.css", import.meta.url).href
  attach(link)
}
