"""What people type finds Quantize Model first, in the editor's own search."""

QUERIES = (
    *("int8", "int4", "fp4", "nvfp4", "nf4", "q4", "compress", "smaller model"),
    *("low vram", "graphquant"),
)
FOUND = """async ([query]) => {
    const box = document.querySelector("[role=dialog] input[role=combobox]")
    box.value = query
    box.dispatchEvent(new Event("input", { bubbles: true }))
    const names = () => [...document.querySelectorAll("[role=option]")]
        .map((option) => option.innerText.split("\\n")[0])
    let [seen, still] = ["", 0]
    while (still < 20) {
        await new Promise(requestAnimationFrame)
        const now = names().join()
        still = now === seen && now ? still + 1 : 0
        seen = now
    }
    return names().slice(0, 2)
}"""


def test_every_common_word_finds_quantize_model_first(editor):
    editor.execute("Workspace.SearchBox.Toggle")
    editor.page.get_by_placeholder("Add a node...").wait_for()
    wanted = "Quantize Model (FP8, INT8, INT4)"
    found = {query: editor.evaluate(FOUND, query) for query in QUERIES}
    assert {query: names for query, names in found.items() if names[:1] != [wanted]} == {}
    # The id of Layerwise Cast has the word fp8, and ids are ranked with names; ComfyUI's own
    # Quantize Image begins with the word and is shorter.
    assert all(wanted in editor.evaluate(FOUND, query) for query in ("fp8", "quantize", "quant"))
    editor.page.keyboard.press("Escape")
