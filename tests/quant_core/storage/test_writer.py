"""A file appears whole, verified and under its name, or not at all."""

import shutil

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from graphquant.quant_core.errors import StorageError
from graphquant.quant_core.storage import TensorFile, TensorSpec, write_file, writer

TENSORS = {
    "codes": torch.arange(-7, 8, dtype=torch.int8).view(3, 5),
    "scale": torch.tensor([[0.5], [1.5], [2.5]]),
    "fp8": torch.linspace(-2, 2, 6).to(torch.float8_e4m3fn).view(2, 3),
    "bias": torch.randn(3, generator=torch.Generator().manual_seed(0)).bfloat16(),
    "transposed": torch.arange(6.0).view(2, 3).T,
    "scalar": torch.tensor(3.25),
    "empty": torch.tensor([]),
}
SPECS = [TensorSpec(name, t.dtype, tuple(t.shape)) for name, t in TENSORS.items()]


def write(target, tensors=None, **options):
    items = (TENSORS if tensors is None else tensors).items()
    return write_file(target, SPECS, items, {"note": "as written"}, **options)


def test_the_safetensors_library_reads_what_was_written(tmp_path):
    size = write(tmp_path / "a.safetensors")
    assert size == (tmp_path / "a.safetensors").stat().st_size
    read = load_file(tmp_path / "a.safetensors")
    assert read.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert read[name].dtype == tensor.dtype and read[name].shape == tensor.shape
        assert torch.equal(read[name].float(), tensor.float())
    with safe_open(tmp_path / "a.safetensors", "pt") as file:
        assert file.metadata() == {"note": "as written"}


def test_our_reader_reads_what_was_written(tmp_path):
    write(tmp_path / "a.safetensors")
    file = TensorFile(tmp_path / "a.safetensors")
    for name, tensor in TENSORS.items():
        assert torch.equal(file.read(name).float(), tensor.float())
    file.close()


def test_the_same_tensors_in_another_order_give_the_same_bytes(tmp_path):
    write(tmp_path / "a.safetensors")
    write(tmp_path / "b.safetensors", dict(reversed(TENSORS.items())))
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_tensors_are_made_one_at_a_time_and_none_is_kept(tmp_path):
    import weakref

    alive = []

    def tensors():
        for name, tensor in TENSORS.items():
            assert not any(reference() is not None for reference in alive[:-1])
            made = tensor.clone()
            alive.append(weakref.ref(made))
            yield name, made
            del made

    write_file(tmp_path / "a.safetensors", SPECS, tensors(), {})
    assert len(alive) == len(TENSORS)


def test_a_file_is_not_replaced_unless_told(tmp_path):
    target = tmp_path / "a.safetensors"
    target.write_bytes(b"mine")
    with pytest.raises(StorageError, match=r"a\.safetensors exists in .*turn overwrite on"):
        write(target)
    assert target.read_bytes() == b"mine"
    write(target, overwrite=True)
    assert load_file(target).keys() == TENSORS.keys()


def test_a_file_that_appears_while_writing_is_not_replaced_either(tmp_path):
    target = tmp_path / "a.safetensors"

    def tensors():
        target.write_bytes(b"mine")
        yield from TENSORS.items()

    with pytest.raises(StorageError, match="exists"):
        write_file(target, SPECS, tensors(), {})
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"mine"]


def test_too_little_space_is_found_before_a_byte_is_written(tmp_path, monkeypatch):
    target = tmp_path / "deep" / "a.safetensors"
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=300))
    with pytest.raises(StorageError, match=r"a\.safetensors needs .* GiB, but .* are free"):
        write(target)
    assert list(target.parent.iterdir()) == []


@pytest.mark.parametrize("done", [1, 8, 14])
def test_cancelling_at_any_point_leaves_no_file(tmp_path, done):
    calls = []

    def on_bytes(count):
        calls.append(count)
        if len(calls) == done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "a.safetensors", on_bytes=on_bytes)
    assert list(tmp_path.iterdir()) == []


def test_progress_counts_every_byte_twice(tmp_path):
    calls = []
    write(tmp_path / "a.safetensors", on_bytes=calls.append)
    assert sum(calls) == 2 * sum(spec.nbytes for spec in SPECS)


def test_an_error_in_the_middle_leaves_the_old_file_and_no_other(tmp_path):
    target = tmp_path / "a.safetensors"
    write(target)
    before = target.read_bytes()

    def tensors():
        yield "codes", TENSORS["codes"]
        raise MemoryError("no memory for the next")

    with pytest.raises(MemoryError):
        write_file(target, SPECS, tensors(), {}, overwrite=True)
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [before]


locked = pytest.mark.skipif(writer.fcntl is None, reason="Windows locks no file like this")


@locked
def test_what_a_killed_process_left_goes_when_its_target_is_written_again(tmp_path):
    left = [f".a.safetensors.{n}.part" for n in ("0123abcd", "ffffffff")]
    others = [".b.safetensors.0123abcd.part", ".a.safetensors.mine.part", "a.safetensors.part"]
    for name in (*left, *others):
        (tmp_path / name).write_bytes(b"half")
    write(tmp_path / "a.safetensors")
    assert {path.name for path in tmp_path.iterdir()} == {"a.safetensors", *others}


@locked
def test_the_space_that_it_took_counts_as_free(tmp_path, monkeypatch):
    left = tmp_path / ".a.safetensors.0123abcd.part"
    left.write_bytes(b"half")
    usage = shutil.disk_usage(tmp_path)
    free = {True: 0, False: usage.free}
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=free[left.exists()]))
    write(tmp_path / "a.safetensors")


@locked
@pytest.mark.parametrize("moment", ["written", "verified"])
def test_what_another_still_writes_or_verifies_stays(tmp_path, moment):
    target = tmp_path / "a.safetensors"
    calls = []

    def on_bytes(count):
        calls.append(count)
        if len(calls) == (3 if moment == "written" else len(TENSORS) + 3):
            (part,) = tmp_path.glob(".*.part")
            write(target)
            assert {path.name for path in tmp_path.iterdir()} == {"a.safetensors", part.name}

    write(target, on_bytes=on_bytes, overwrite=True)
    assert load_file(target).keys() == TENSORS.keys()
    assert len(list(tmp_path.iterdir())) == 1


@locked
def test_a_temporary_file_that_is_taken_before_it_is_locked_is_made_anew(tmp_path, monkeypatch):
    lock, taken = writer._lock, []

    def take_the_first(file, wait=False):
        if not taken:
            taken.append(file.name)
            (tmp_path / file.name).unlink()
        return lock(file, wait)

    monkeypatch.setattr(writer, "_lock", take_the_first)
    write(tmp_path / "a.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["a.safetensors"] and taken


@pytest.mark.parametrize(
    "change, fault",
    [
        ({"scale": torch.zeros(3, 1, dtype=torch.float64)}, "scale came as .*float64"),
        ({"scale": torch.zeros(3)}, "scale came as"),
        ({"stranger": torch.zeros(1)}, "stranger came as"),
    ],
)
def test_a_tensor_that_is_not_as_announced_is_refused(tmp_path, change, fault):
    with pytest.raises(StorageError, match=fault):
        write(tmp_path / "a.safetensors", TENSORS | change)
    assert list(tmp_path.iterdir()) == []


def test_an_announced_tensor_that_never_comes_is_refused(tmp_path):
    tensors = {name: tensor for name, tensor in TENSORS.items() if name != "bias"}
    with pytest.raises(StorageError, match="1 tensors were announced, not written: bias"):
        write(tmp_path / "a.safetensors", tensors)
    assert list(tmp_path.iterdir()) == []


def test_a_byte_that_the_disk_changed_is_found(tmp_path, monkeypatch):
    synced = writer.os.fsync

    def fsync_and_flip_the_last_byte(descriptor):
        synced(descriptor)
        (part,) = tmp_path.glob(".*.part")
        content = bytearray(part.read_bytes())
        content[-1] ^= 1
        part.write_bytes(content)

    monkeypatch.setattr(writer.os, "fsync", fsync_and_flip_the_last_byte)
    with pytest.raises(StorageError, match=r"fp8 read back .* differs from what was written"):
        write(tmp_path / "a.safetensors")
    assert list(tmp_path.iterdir()) == []
