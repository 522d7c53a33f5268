"""Writes the example workflows."""

from __future__ import annotations

import json
import tempfile

from ..pack import ROOT
from ..server import Server
from . import EXAMPLES, workflow


def main() -> None:
    with tempfile.TemporaryDirectory() as base, Server(base) as server:
        for example in EXAMPLES:
            text = json.dumps(workflow(example, server.object_info), indent=1)
            example.file.write_text(text + "\n")
            print(f"wrote {example.file.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
