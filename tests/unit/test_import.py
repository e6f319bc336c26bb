from __future__ import annotations

import subprocess
import sys

import pytest


def python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout


@pytest.mark.parametrize(
    "code",
    [
        "import alignite",
        "import alignite; alignite.SFTConfig(learning_rate=1e-4).validate(); alignite.AligniteError('x')",
        "import alignite.data.prepare, alignite.data.prepared, alignite.data.tokenizer",
        "from alignite.cli.main import main; main(['--help'])",
        "from alignite.cli.main import main; main(['sft', '--help'])",
        "from alignite.cli.main import main; assert main(['sft', '--modle', 'x']) == 2",
        "from alignite.cli.main import main; assert main(['sft', '--model', 'no/hub']) == 2",
    ],
)
def test_neither_torch_nor_transformers_is_imported(code: str) -> None:
    loaded = python(f"{code}\nimport sys; print('LOADED', [m for m in ('torch', 'transformers') if m in sys.modules])")
    assert loaded.splitlines()[-1] == "LOADED []"


def test_every_public_name_is_there() -> None:
    import alignite

    for name in dir(alignite):
        assert getattr(alignite, name) is not None
    assert {"SFTTrainer", "SFTConfig", "LoraConfig"} <= set(dir(alignite))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        alignite.nothing  # noqa: B018


def test_the_version_is_the_packages() -> None:
    from importlib.metadata import version

    import alignite

    assert alignite.__version__ == version("alignite")
