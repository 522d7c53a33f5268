"""web/patterns.js means what quant_core/patterns.py means."""

from itertools import product

from graphquant.quant_core.patterns import matches, parse_patterns

NAMES = (
    "",
    "blocks",
    "blocks.0.norm",
    "blocks.0.normal_proj",
    "blocks.1.attn.qkv",
    "blocks.10.attn.qkv",
    "vace_blocks.1.mlp.0",
    "model.mod",
    "img_mod.lin",
    "a-b.c]d[e!f",
    "final_layer.linear",
)
PATTERNS = (
    "norm",
    "blocks",
    "blocks.1",
    "mod",
    "attn.qkv",
    "*",
    "**",
    "*norm*",
    "blocks.?.attn*",
    "blocks.[0-1].*",
    "blocks.[!0].*",
    "blocks.[1-0].*",
    "*.[a-c]*",
    "*[]]d*",
    "*[!]]",
    "*[",
    "[",
    "[!",
    "[]",
    "a[-]b*",
    "a[+--]b*",
    "*[!f]",
    "*!f",
    "?lock*",
    "*.*.*.*",
    "*q*v",
    "final_layer.linear*",
    "*x",
    "(?i)norm",
    "*\\*",
)
TEXTS = ("", "a", "a, b", "a\nb\r\nc", " a ,, a\n\n b ", "blocks.0, blocks.0\nnorm")


def test_javascript_and_python_agree_on_every_name_and_pattern(editor):
    cases = [list(case) for case in product(PATTERNS, NAMES)]
    found = editor.evaluate(
        """async ([cases]) => {
            const { matches } = await import("/extensions/GraphQuant/patterns.js")
            return cases.map(([pattern, name]) => matches(pattern, name))
        }""",
        cases,
    )
    expected = [matches(pattern, name) for pattern, name in cases]
    answers = zip(cases, found, expected, strict=True)
    assert [case for case, answer, right in answers if answer != right] == []
    assert 60 < sum(expected) < len(cases)


def test_javascript_and_python_read_the_same_patterns_out_of_a_text(editor):
    found = editor.evaluate(
        """async ([texts]) => {
            const { parsePatterns } = await import("/extensions/GraphQuant/patterns.js")
            return texts.map(parsePatterns)
        }""",
        TEXTS,
    )
    assert found == [list(parse_patterns(text)) for text in TEXTS]
