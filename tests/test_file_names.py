"""A file's name says which of the pack's files it is."""

from lab.pack import ROOT

# The same library or concept seen from two rooms: its words and its files, there and back.
MIRRORS = {
    "bitsandbytes.py": {"quant_core/config", "quant_core/storage/foreign"},
    "modelopt.py": {"quant_core/config", "quant_core/storage/foreign"},
    "torchao.py": {"quant_core/config", "quant_core/storage/foreign"},
    "torchao_tensors.py": {"quant_core/carriers", "quant_core/storage/foreign"},
    "gguf.py": {"quant_core/config", "quant_core/formats"},
}


def test_two_files_of_the_pack_share_a_name_only_where_one_mirrors_the_other():
    rooms: dict[str, set[str]] = {}
    for house in ("nodes", "quant_core"):
        for path in (ROOT / house).rglob("*.py"):
            if path.name not in ("__init__.py", "__main__.py"):
                room = path.parent.relative_to(ROOT).as_posix()
                rooms.setdefault(path.name, set()).add(room)
    assert {name: found for name, found in rooms.items() if len(found) > 1} == MIRRORS
