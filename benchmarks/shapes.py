"""The Linear layers that the time of an image or a video is spent in."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Gemm:
    """tokens x inputs times inputs x outputs."""

    model: str
    layer: str
    tokens: int
    inputs: int
    outputs: int

    @property
    def flops(self) -> int:
        return 2 * self.tokens * self.inputs * self.outputs

    def smaller(self, tokens: int, width: int) -> Gemm:
        """A ``tokens``-th of the tokens, a ``width``-th of the widths, in whole 64s."""
        sizes = (self.tokens // tokens, self.inputs // width, self.outputs // width)
        return Gemm(self.model, self.layer, *(max(64, size // 64 * 64) for size in sizes))


def _gemms(model: str, tokens: int, layers: dict[str, tuple[int, int]]) -> tuple[Gemm, ...]:
    return tuple(Gemm(model, layer, tokens, *sizes) for layer, sizes in layers.items())


# Image models at 1024 x 1024: 4096 image tokens and their text's.
GEMMS = (
    *_gemms(
        "FLUX.1",
        4096 + 512,
        {
            "qkv": (3072, 9216),
            "mlp up": (3072, 12288),
            "mlp down": (12288, 3072),
            "single in": (3072, 21504),
            "single out": (15360, 3072),
        },
    ),
    *_gemms(
        "FLUX.2-klein 9B",
        4096 + 512,
        {"qkv": (4096, 12288), "single in": (4096, 36864), "single out": (16384, 4096)},
    ),
    *_gemms(
        "Qwen-Image",
        4096 + 256,
        {"attention": (3072, 3072), "mlp up": (3072, 12288), "mlp down": (12288, 3072)},
    ),
    *_gemms(
        "Z-Image",
        4096 + 256,
        {"qkv": (3840, 11520), "mlp up": (3840, 10240), "mlp down": (10240, 3840)},
    ),
    # 81 frames of 832 x 480.
    *_gemms(
        "Wan 2.2 14B",
        21 * 30 * 52,
        {"attention": (5120, 5120), "mlp up": (5120, 13824), "mlp down": (13824, 5120)},
    ),
    # 121 frames of 768 x 512.
    *_gemms(
        "LTX-2",
        16 * 16 * 24,
        {"attention": (4096, 4096), "mlp up": (4096, 16384), "mlp down": (16384, 4096)},
    ),
)
# A batch of one through a modulation layer: no matmul to speak of, all of it weight.
SMALL_M = Gemm("FLUX.1", "modulation", 1, 3072, 18432)
