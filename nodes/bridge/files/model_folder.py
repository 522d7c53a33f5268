"""Files in ComfyUI's folder of diffusion models: their names, paths and formats."""

from __future__ import annotations

import re
from pathlib import Path

import folder_paths

from ....quant_core.errors import StorageError
from ....quant_core.storage import GGUF_SUFFIX, INDEX_SUFFIX

FOLDER = "diffusion_models"
# What a saved file's tensors are: ComfyUI's own formats or this pack's; auto decides by the model.
AUTO, STOCK, OURS = "auto", "stock", "graphquant"
FILE_FORMATS = (AUTO, STOCK, OURS)
_SUFFIX = ".safetensors"
_READABLE = (_SUFFIX, ".sft", GGUF_SUFFIX)
_SHARD = re.compile(r"(.+)-\d+-of-\d+\.safetensors")
# Names that some operating system reads as more than a name, or as a device. A name may not end in
# a dot or a space either.
_UNSAFE = re.compile(
    r'[<>:"|?*\x00-\x1f]|[. ]$|^(con|prn|aux|nul|com\d|lpt\d)(\.|$)', re.IGNORECASE
)


def save_target(prefix: str, folder: str = FOLDER) -> Path:
    """The path models/``folder``/``prefix``.safetensors; ``prefix`` may name folders.

    StorageError for an absolute path, a step upwards, or a name that some system can't have.
    """
    parts = prefix.strip().removesuffix(_SUFFIX).replace("\\", "/").split("/")
    if not all(parts) or any(_UNSAFE.search(part) for part in parts):
        raise StorageError(
            f"filename_prefix {prefix!r} can't be a name below models/{folder}. "
            "Use a name such as flux-int8 or quantized/flux-int8."
        )
    *folders, name = parts
    return _home(folder).joinpath(*folders, name + _SUFFIX)


def below_models(path: Path, folder: str = FOLDER) -> str:
    """A target of ``save_target`` as users know it: diffusion_models/quantized/flux.safetensors."""
    home = _home(folder)
    return f"{folder}/{path.relative_to(home).as_posix()}"


def choices() -> list[str]:
    """The names of files that can be read: safetensors, GGUF, and an index instead of its
    shards."""
    names: dict[str, None] = {}
    for name in (*folder_paths.get_filename_list(FOLDER), *_gguf_files()):
        shard = _SHARD.fullmatch(name)
        index = f"{shard[1]}{INDEX_SUFFIX}" if shard else ""
        if index and folder_paths.get_full_path(FOLDER, index):
            names[index] = None
        elif name.lower().endswith(_READABLE):
            names[name] = None
    return list(names)


def _gguf_files() -> list[str]:
    """ComfyUI lists only what it reads itself."""
    found: set[str] = set()
    for folder in folder_paths.get_folder_paths(FOLDER):
        names, _ = folder_paths.recursive_search(folder, excluded_dir_names=[".git"])
        found |= {name for name in names if name.lower().endswith(GGUF_SUFFIX)}
    return sorted(found)


def find(name: str) -> Path:
    """The file called ``name``. FileNotFoundError if there is none."""
    return Path(folder_paths.get_full_path_or_raise(FOLDER, name))


def _home(folder: str) -> Path:
    """The folder of that name of those that ComfyUI searches; models/unet and models/clip are
    older."""
    folders = [Path(each) for each in folder_paths.get_folder_paths(folder)]
    return next((each for each in folders if each.name == folder), folders[0])
