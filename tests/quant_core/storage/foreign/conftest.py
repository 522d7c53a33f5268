"""Files as other libraries write them."""

import pytest
from safetensors.torch import save_file

from graphquant.quant_core.storage import TensorFiles
from graphquant.quant_core.storage.foreign import find_foreign


@pytest.fixture
def found(tmp_path):
    """``found(tensors, metadata=None)`` -> the file's layers and open files."""
    opened = []

    def run(tensors, metadata=None):
        path = tmp_path / "foreign.safetensors"
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path, metadata)
        files = TensorFiles(path)
        opened.append(files)
        files.__enter__()
        return find_foreign(files), files

    yield run
    for files in opened:
        files.__exit__()
