"""The version that goes into files is the pack's."""

import re

from graphquant.quant_core.version import VERSION
from lab.pack import ROOT


def test_the_version_is_that_of_pyproject():
    text = (ROOT / "pyproject.toml").read_text()
    assert re.search(r'^version = "(.+)"$', text, re.MULTILINE)[1] == VERSION
