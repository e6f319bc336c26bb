"""Models of a hub on this machine: what is fetched, what is kept, what wins."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_hub import FakeHub, Repo, environment, fake_hub, folder_files, python

from alignite.data import hub_access
from alignite.data.hub import resolve_model
from alignite.data.hub_access import HubName, unreachable
from alignite.errors import AdapterError, ModelError

RESOLVE = "from alignite.data.hub import resolve_model; print(resolve_model(*sys.argv[1:]))"
EXTRAS = {"pytorch_model.bin": b"x", "modeling.py": b"x", "README.md": b"x", "onnx/model.safetensors": b"x"}


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with fake_hub() as hub:
        yield hub


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("org/name", HubName("org/name")),
        ("Org-1/na.me_2@v1.0", HubName("Org-1/na.me_2", "v1.0")),
        ("org/name@refs/pr/1", HubName("org/name", "refs/pr/1")),
        ("org/name:test", HubName("org/name", split="test")),
        ("org/name:en-US:test", HubName("org/name", None, "en-US", "test")),
        ("org/name@v1:main:train", HubName("org/name", "v1", "main", "train")),
    ],
)
def test_names(text: str, expected: HubName) -> None:
    assert HubName.parse(text, rows=True) == expected
    assert HubName.parse(text) == (None if ":" in text else expected)


@pytest.mark.parametrize(
    "text",
    [
        "name",
        "./org/name",
        "/org/name",
        "org/name/",
        "a/b/c",
        "org/../x",
        "org/name@../../x",
        "org/name@",
        "org/name:",
        "org/name:a:b:c",
        "org/name:train[:10]",
        "org/name:..:train",
        "org/na--me",
        "org/name.",
        "data/rows.jsonl",
        "data/rows.jsonl.gz",
        "models/x.gguf",
        "orgé/name",
        "",
    ],
)
def test_what_can_only_be_a_path(text: str) -> None:
    assert HubName.parse(text, rows=True) is None


def test_a_download_holds_what_is_used_and_serves_when_the_hub_is_gone(tmp_path: Path, tiny_model_folder: Path) -> None:
    with fake_hub() as hub:
        hub.repos["models/org/tiny"] = Repo({"main": {**folder_files(tiny_model_folder), **EXTRAS}})
        env = environment(tmp_path, hub.url)
        first = python(RESOLVE, env, "org/tiny")
        assert first.returncode == 0, first.stdout + first.stderr
        assert hub.fetched() == set(folder_files(tiny_model_folder))
        folder = Path(first.stdout.strip())
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == folder_files(tiny_model_folder)
        asked = len(hub.asked)
        assert python(RESOLVE, env, "org/tiny").stdout == first.stdout
        assert len(hub.asked) == asked
    again = python(RESOLVE, env, "org/tiny")
    assert (again.returncode, again.stdout, again.stderr) == (0, first.stdout, "")


def test_a_tokenizer_alone_brings_no_weights_and_the_model_is_completed_later(
    tmp_path: Path, tiny_model_folder: Path, hub: FakeHub
) -> None:
    hub.repos["models/org/tiny"] = Repo({"main": folder_files(tiny_model_folder)})
    env = environment(tmp_path, hub.url)
    code = "from alignite.data import ChatTokenizer; print(ChatTokenizer.from_folder('org/tiny').eos_token_ids)"
    done = python(code, env)
    assert done.stdout == "(2,)\n", done.stderr
    assert hub.fetched() == {"tokenizer.json", "tokenizer_config.json", "config.json", "generation_config.json"}
    done = python(RESOLVE, env, "org/tiny")
    assert (Path(done.stdout.strip()) / "model.safetensors").is_file()


def test_a_revision_is_another_copy_and_a_branch_keeps_what_it_meant(tmp_path: Path, hub: FakeHub) -> None:
    old = {"config.json": b"{}", "tokenizer.json": b"{}", "tokenizer_config.json": b"{}", "model.safetensors": b"old"}
    repo = hub.repos["models/org/tiny"] = Repo({"v1": old, "main": {**old, "model.safetensors": b"new"}})
    env = environment(tmp_path, hub.url)

    def weights(name: str) -> bytes:
        return (Path(python(RESOLVE, env, name).stdout.strip()) / "model.safetensors").read_bytes()

    assert weights("org/tiny@v1") == b"old"
    assert weights("org/tiny") == b"new"
    assert weights(f"org/tiny@{repo.sha('v1')}") == b"old"
    repo.files["main"] = {**old, "model.safetensors": b"newer"}
    assert weights("org/tiny") == b"new"


def test_a_copy_that_is_not_whole_is_completed(tmp_path: Path, tiny_model_folder: Path, hub: FakeHub) -> None:
    files = folder_files(tiny_model_folder)
    shards = {f"model-0000{n}-of-00002.safetensors": b"x" for n in (1, 2)}
    index = b'{"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}'
    files = {**files, **shards, "model.safetensors.index.json": index}
    del files["model.safetensors"]
    hub.repos["models/org/tiny"] = Repo({"main": files})
    env = environment(tmp_path, hub.url)
    folder = Path(python(RESOLVE, env, "org/tiny").stdout.strip())
    (folder / "model-00002-of-00002.safetensors").unlink()
    assert python(RESOLVE, env, "org/tiny").returncode == 0
    assert (folder / "model-00002-of-00002.safetensors").is_file()


def test_an_adapter(tmp_path: Path, hub: FakeHub) -> None:
    files = {"adapter_config.json": b"{}", "adapter_model.safetensors": b"x"}
    hub.repos["models/org/lora"] = Repo({"main": {**files, "tokenizer.json": b"{}", "adapter_model.bin": b"x"}})
    env = environment(tmp_path, hub.url)
    done = python(RESOLVE, env, "org/lora", "adapter")
    assert folder_files(Path(done.stdout.strip())) == files, done.stderr
    done = python(RESOLVE, env, "org/lora")
    assert done.returncode == 4
    assert "it holds an adapter, not a model" in done.stdout


def test_a_path_wins_over_the_hub_and_a_folder_of_that_name_asks_for_certainty(tmp_path: Path, hub: FakeHub) -> None:
    (tmp_path / "org" / "tiny").mkdir(parents=True)
    env = environment(tmp_path, hub.url)
    assert python(RESOLVE, env, "org/tiny", cwd=tmp_path).stdout == "org/tiny\n"
    done = python(RESOLVE, env, "org/tony", cwd=tmp_path)
    assert done.returncode == 4
    assert "folder 'org' is here and holds no 'tony'" in done.stdout
    assert "org/tony@main" in done.stdout
    assert hub.asked == []
    assert "answers 404" in python(RESOLVE, env, "org/tony@main", cwd=tmp_path).stdout


def test_what_is_no_folder_and_no_name(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for name in (str(tmp_path / "none"), "none", tmp_path / "none", str(tmp_path / "file"), Path("org/name")):
        with pytest.raises(ModelError, match="no model folder") as error:
            resolve_model(name)
        assert error.value.fix
    with pytest.raises(AdapterError, match="no adapter folder"):
        resolve_model("none", "adapter")
    assert resolve_model(str(tmp_path)) == tmp_path


def test_a_name_server_that_does_not_answer_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    import threading
    import time

    from huggingface_hub import constants

    ended = threading.Event()

    def never(*_: object, **__: object) -> list[object]:
        ended.wait(20)
        return []

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "https://hub.invalid")
    monkeypatch.setattr(hub_access.socket, "getaddrinfo", never)
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    start = time.monotonic()
    assert "hub.invalid:443 does not answer within 0.5 s" in str(unreachable())
    assert time.monotonic() - start < 0.9
    monkeypatch.setenv("ALIGNITE_HUB_TIMEOUT", "0.01")
    assert "within 0.01 s" in str(unreachable())
    monkeypatch.setenv("https_proxy", "http://proxy.invalid:3128")
    assert "proxy.invalid:3128" in str(unreachable())
    ended.set()
