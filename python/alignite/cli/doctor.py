"""``alignite doctor``"""

from __future__ import annotations

import json
import os
import platform
import shutil
import tempfile
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from alignite.cli.options import parse
from alignite.config import DoctorConfig

PACKAGES = ("alignite", "torch", "transformers", "numpy", "safetensors", "tokenizers", "jinja2", "PyYAML", "rich")
EXTRAS = ("peft", "trl", "datasets")


def run(argv: Sequence[str]) -> int:
    """Show versions, hardware and a self-test of the Rust core.

    Returns:
        0 when alignite is usable here, 6 when only the folder cannot be written, 70 when something needed is broken.
    """
    _, as_json = parse(
        DoctorConfig, "alignite doctor", "Show what this machine has and whether alignite works on it.", argv
    )
    found: dict[str, Any] = {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: _version(name) for name in PACKAGES},
        "extras": {name: _version(name) for name in EXTRAS},
        "cpus": os.cpu_count(),
        "cpu_features": _cpu_features(),
        "nvrtc": _nvrtc(),
        "memory_gib": _memory(),
        "disk_free_gib": round(shutil.disk_usage(".").free / 2**30, 1),
    }
    problems: list[dict[str, str]] = []
    for name, check, fix in (
        ("rust_core", _rust_core, "pip install --force-reinstall alignite, or `make setup` in a checkout"),
        ("torch_backend", _torch, "pip install --force-reinstall torch"),
        ("working_folder", _writable, "change to a folder that you may write, with free space"),
    ):
        try:
            found[name] = check()
        except Exception as error:  # noqa: BLE001 - the doctor reports whatever is broken
            found[name] = f"broken: {error}"
            problems.append({"what": f"{name}: {error}", "fix": fix})
    missing = [name for name, version in found["packages"].items() if version is None]
    problems += [{"what": f"{name} is not installed", "fix": f"pip install {name}"} for name in missing]
    found["problems"] = problems
    if as_json:
        print(json.dumps(found))
    else:
        _print(found)
    if not problems:
        return 0
    return 6 if all(problem["what"].startswith("working_folder") for problem in problems) else 70


def _print(found: dict[str, Any]) -> None:
    for name, value in found.items():
        if isinstance(value, dict):
            print(f"{name}:")
            for key, inner in value.items():
                print(f"  {key:<14}{'-' if inner is None else inner}")
        elif name != "problems":
            print(f"{name:<16}{', '.join(value) if isinstance(value, list) else value}")
    for problem in found["problems"]:
        print(f"PROBLEM  {problem['what']}\n    fix: {problem['fix']}")
    print("not usable as it is" if found["problems"] else "all is well")


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _cpu_features() -> list[str]:
    wanted = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_tile", "asimd", "sve")
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return []
    flags = next((line.split(":")[1].split() for line in lines if line.startswith(("flags", "Features"))), [])
    return [name for name in wanted if name in flags]


def _nvrtc() -> str:
    """The CUDA compiler library, which pip brings with CUDA builds of torch."""
    for package in ("nvidia-cuda-nvrtc", "nvidia-cuda-nvrtc-cu13", "nvidia-cuda-nvrtc-cu12"):
        version = _version(package)
        if version is not None:
            return f"{package} {version}"
    return "none (only needed for GPU kernels: pip install nvidia-cuda-nvrtc)"


def _memory() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (ValueError, OSError):
        return None


def _rust_core() -> str:
    from alignite.native.data import shuffled

    items = shuffled(100_000, 1, 0, 0, 100_000)
    if sorted(items.tolist()) != list(range(100_000)):
        raise RuntimeError("the shuffled order is not a permutation")
    return "works"


def _torch() -> str:
    import torch

    if not torch.cuda.is_available():
        return f"CPU only, {torch.get_num_threads()} threads" + _driver()
    device = torch.cuda.get_device_properties(0)
    return f"CUDA {torch.version.cuda}, {device.name}, {device.total_memory / 2**30:.0f} GiB"


def _driver() -> str:
    has_driver = Path("/proc/driver/nvidia/version").exists() or shutil.which("nvidia-smi") is not None
    return " (an NVIDIA driver is there, but torch cannot use it)" if has_driver else " (no NVIDIA driver)"


def _writable() -> str:
    with tempfile.TemporaryFile(dir="."):
        return f"{Path.cwd()} can be written"
