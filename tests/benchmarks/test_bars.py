"""A bar is missed from the side that it bounds, and the table says so."""

from benchmarks.bars import Figure, markdown


def test_a_bar_is_the_most_or_the_least():
    assert Figure("seconds", 1.0, 1.0).holds and not Figure("seconds", 1.1, 1.0).holds
    speed = Figure("speed", 1.1, 1.0, most=False)
    assert speed.holds and not Figure("speed", 0.9, 1.0, most=False).holds


def test_a_missed_bar_is_named():
    found = [Figure("a", 1.5, 1.0), Figure("b", 1.5, 1.0, most=False)]
    assert markdown(found).splitlines()[2:] == [
        "| a | 1.5 | <= 1 | missed |",
        "| b | 1.5 | >= 1 |  |",
    ]
