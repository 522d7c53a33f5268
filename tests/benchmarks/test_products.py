"""The table of products with rounded activations is what is measured."""

from benchmarks.numerics.products import RESULTS, markdown, measure


def test_rotation_takes_the_outliers_away():
    found = measure(("int8-dynamic", "int8-convrot"))
    assert found["int8-convrot"]["outlier channels"] <= 0.014
    assert found["int8-dynamic"]["outlier channels"] > 0.04
    lines = markdown(found).splitlines()
    told = (RESULTS / "products.md").read_text(encoding="utf-8").splitlines()
    assert {line for line in lines if line.startswith("| int8")} <= set(told)
