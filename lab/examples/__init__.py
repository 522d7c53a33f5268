"""The example workflows: what they hold, where each node lies, and the same on tiny models.

``python -m lab.examples`` writes example_workflows/*.json; thumbnails come from lab.screenshots.
"""

from .catalogue import EXAMPLES, FP8_WITH_LORA
from .editor import WIDTH, workflow
from .parts import FOLDER, Example
from .tiny import on_tiny_model, tiny_files

__all__ = [
    "EXAMPLES",
    "FOLDER",
    "FP8_WITH_LORA",
    "WIDTH",
    "Example",
    "on_tiny_model",
    "tiny_files",
    "workflow",
]
