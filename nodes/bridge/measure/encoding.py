"""What quantizing a CLIP cost: the embeddings of a few prompts beside those in full precision."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager

import comfy.model_management
import torch
from comfy.sd import CLIP
from torch import nn

from ....quant_core.measure.embedding_error import EmbeddingError, embedding_error
from ....quant_core.report import Report
from ..model.float_weight import unload

PROMPTS = (
    "a red fox in the snow",
    "A close portrait of an old fisherman in a yellow raincoat, grey beard, the harbour at dawn "
    "behind him, shallow depth of field, 85 mm photograph",
    'A shop window with the words "OPEN 24/7" in blue neon letters, rain on the glass, two people '
    "reflected in it, film still of the 1980s",
)
LEAST_COSINE = 0.99
_LANGUAGE_MODEL = "lm_prompt"  # what ACE-Step's language model is given; no conditioning shows it
_MOST_LAYERS = 8

Embeddings = dict[str, list[torch.Tensor]]


def encoding_errors(
    reference: CLIP, quantized: CLIP, paths: Collection[str]
) -> dict[str, EmbeddingError]:
    """The error of each text encoder of ``quantized``, by its path (``t5xxl.transformer``), over
    PROMPTS. An encoder that they do not reach is left out.

    reference: the CLIP that it was made of. One of the two is loaded at a time; ``quantized`` stays
    loaded.
    """
    expected = _embeddings(reference, paths)
    unload(reference.patcher)
    found = _embeddings(quantized, paths)
    errors = {
        path: embedding_error(zip(found[path], expected[path], strict=True)) for path in paths
    }
    return {path: error for path, error in errors.items() if error is not None}


def with_encoding_errors(
    reports: Mapping[str, Report], errors: Mapping[str, EmbeddingError]
) -> dict[str, Report]:
    """``reports`` of a CLIP's encoders, by path, with what was measured; a warning where an
    encoder's cosine is below LEAST_COSINE."""
    return {
        path: _with_error(report, errors.get(path)) if report.plan.quantized else report
        for path, report in reports.items()
    }


def _with_error(report: Report, error: EmbeddingError | None) -> Report:
    if error is None:
        note = "No prompt reaches this encoder: its error was not measured."
        return dataclasses.replace(report, notes=(*report.notes, note))
    note = (
        f"Embeddings of {len(PROMPTS)} prompts against full precision: cosine {error.cosine:.4f}, "
        f"relative L2 {error.relative_l2:.3f} (lowest cosine of a token {error.lowest_cosine:.4f})."
    )
    made = dataclasses.replace(
        report, notes=(*report.notes, note), measured={"embedding": error.to_dict()}
    )
    if error.cosine >= LEAST_COSINE:
        return made
    warning = (
        f"The embeddings' cosine to full precision is {error.cosine:.4f}, below {LEAST_COSINE}: "
        "prompts may be followed less closely. Set compute to full, or choose int8-convrot."
    )
    return dataclasses.replace(made, warnings=(*made.warnings, warning))


def _embeddings(clip: CLIP, paths: Collection[str]) -> Embeddings:
    """What each encoder gives for PROMPTS, float32 on the CPU, a tensor a call."""
    with _kept(clip.cond_stage_model, paths) as seen:
        for prompt in PROMPTS:
            comfy.model_management.throw_exception_if_processing_interrupted()
            before = {path: len(seen[path]) for path in paths}
            tokens = clip.tokenize(prompt, generate_audio_codes=False)
            clip.encode_from_tokens(tokens)
            if not isinstance(tokens, dict) or _LANGUAGE_MODEL not in tokens:
                continue
            numbers = [[token for token, _ in row] for row in tokens[_LANGUAGE_MODEL]]
            for path in paths:
                if len(seen[path]) == before[path]:
                    _owner(clip.cond_stage_model, path)(numbers)
    return seen


def _owner(model: nn.Module, path: str) -> nn.Module:
    """The module that gives the embeddings of the transformer at ``path``."""
    return model.get_submodule(path.rpartition(".")[0])


@contextmanager
def _kept(model: nn.Module, paths: Collection[str]) -> Iterator[Embeddings]:
    """The embeddings that pass while the context lasts."""
    seen: Embeddings = {path: [] for path in paths}

    def keep(path: str):
        def hook(encoder: nn.Module, arguments: tuple, output: tuple) -> None:
            seen[path].append(_of_words(output[0], encoder, arguments).float().cpu())

        return hook

    hooks = [_owner(model, path).register_forward_hook(keep(path)) for path in paths]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def _of_words(embeddings: torch.Tensor, encoder: nn.Module, arguments: tuple) -> torch.Tensor:
    """``embeddings`` [batch, tokens, width] or [batch, layers, tokens, width] without those of
    padding, which would be most of them, and of a few layers where there are many."""
    if embeddings.dim() == 4:
        embeddings = embeddings[:, :: -(-embeddings.shape[1] // _MOST_LAYERS)]
    tokens = arguments[0] if arguments else ()
    if len(tokens) != 1 or len(tokens[0]) != embeddings.shape[-2]:
        return embeddings
    pad = getattr(encoder, "special_tokens", {}).get("pad")
    words = [at for at, token in enumerate(tokens[0]) if token != pad]
    return embeddings[..., words, :] if words else embeddings
