"""Devices by name: what is compiled for, and how much memory one of them has."""

from __future__ import annotations

import dataclasses
import difflib
import importlib.util
import os
import re
from importlib import resources
from pathlib import Path
from typing import Any, cast

from jtrust import checks

GIB = 2**30
# GiB of one JAX device (v2, v3, v4 and tpu7x: half a chip), and what XLA lets a program have of it:
# cloud.google.com/tpu/docs, and the limit in XLA's own words when it refuses a program (libtpu
# 0.0.42).
_TPU_MEMORY = {
    "v2": (8, 7.48), "v3": (16, 15.48), "v4": (16, 15.25), "v5e": (16, 15.75), "v5p": (96, 95.74),
    "v6e": (32, 31.25), "tpu7x": (96, 94.75),
}
_TPU_EXAMPLES = ("v5e:2x2", "v5e:16x16", "v5p:2x2x1", "v6e:2x2", "v4:2x2x1", "tpu7x:2x2x1")
# JAX takes this share of a GPU's memory at its start, unless told otherwise.
_GPU_SHARE = 0.75
_GPU_SHARE_VARIABLES = ("XLA_CLIENT_MEM_FRACTION", "XLA_PYTHON_CLIENT_MEM_FRACTION")
_GPU_COUNT = re.compile(r"(?P<kind>.+?)(?::(?:(?P<hosts>[1-9]\d{0,3})x)?(?P<each>[1-9]\d{0,3}))?")
_DIMENSIONS = re.compile(r"[1-9]\d{0,3}(x[1-9]\d{0,3}){1,2}")


@dataclasses.dataclass(frozen=True)
class Target:
    """Devices to compile for.

    Attributes:
      name: what the user called them.
      platform: gpu, tpu or cpu.
      shape: of a GPU target (hosts, GPUs of each), of a TPU's topology its dimensions, of a CPU
        (devices,), or () where `jtrust train` would choose.
      memory_bytes: of one device.
      usable_bytes: what a program may have of it.
      description: of a GPU, for XLA.
    """

    name: str
    platform: str
    shape: tuple[int, ...]
    memory_bytes: int
    usable_bytes: int
    description: str = ""

    @property
    def topology(self) -> str:
        """The shape as XLA wants it said."""
        if self.platform == "gpu":
            return "1x" + "x".join(map(str, self.shape))
        return "x".join(map(str, self.shape))


def gpus() -> list[str]:
    """The GPUs that have a name here."""
    files = resources.files("jtrust.planning").joinpath("gpus").iterdir()
    return sorted(f.name.removesuffix(".txtpb") for f in files if f.name.endswith(".txtpb"))


def find_target(name: Any) -> Target:
    """What a name means; nothing of JAX is started.

    Args:
      name: a GPU (`h100`; `h100:4`: four; `h100:2x4`: two hosts with four each), a TPU's topology
        (`v5e:2x2`), `cpu` (`cpu:4`: four devices), or a file with XLA's description of a GPU,
        also with a number behind it.

    Raises:
      BadArgument: it is none of these, or what compiles for it is not installed.
    """
    if not isinstance(name, str) or not name.strip():
        raise checks.BadArgument("target", name, "must be a name, such as h100, v5e:2x2 or cpu")
    parts = _GPU_COUNT.fullmatch(name)
    kind = parts["kind"] if parts else name
    shape = (int(parts["hosts"] or 1), int(parts["each"] or 1)) if parts else (1, 1)
    if kind == "cpu":
        return _cpu(name, shape, cast(re.Match, parts))  # which `cpu` matches
    tpu, _, dimensions = name.partition(":")
    if tpu in _TPU_MEMORY:
        return _tpu(name, tpu, dimensions)
    if kind in gpus():
        text = resources.files("jtrust.planning").joinpath("gpus", f"{kind}.txtpb").read_text()
        return _gpu(name, text, shape)
    if kind.endswith(".txtpb") or os.sep in kind or Path(kind).is_file():
        return _gpu(name, _read(kind), shape)
    raise _unknown(name, kind)


def _unknown(name: str, kind: str) -> checks.BadArgument:
    plain = [*gpus(), *_TPU_EXAMPLES, "cpu"]
    general = kind.lower() in ("gpu", "cuda", "nvidia", "tpu")
    near = [] if general else difflib.get_close_matches(name.lower(), plain, n=3, cutoff=0.5) or (
        difflib.get_close_matches(kind.lower(), plain, n=3, cutoff=0.5)
    )
    remedy = "did you mean " + " or ".join(near) + "?" if near else (
        "choose from " + ", ".join(plain) + ", or a file with a GPU's description"
    )
    return checks.BadArgument("target", name, f"unknown target; {remedy}")


def _cpu(name: str, shape: tuple[int, int], parts: re.Match) -> Target:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if parts["hosts"] or shape[1] > 512:
        raise checks.BadArgument("target", name, "must be cpu, or cpu:N with up to 512 devices")
    return Target(name, "cpu", (shape[1],) if parts["each"] else (), memory, memory)


def _tpu(name: str, kind: str, dimensions: str) -> Target:
    if not _DIMENSIONS.fullmatch(dimensions):
        like = next(x for x in (*_TPU_EXAMPLES, f"{kind}:2x2") if x.startswith(f"{kind}:"))
        raise checks.BadArgument("target", name, f"must say how many chips, such as {like}")
    if importlib.util.find_spec("libtpu") is None:
        raise checks.BadArgument(
            "target", name, "needs XLA's compiler for TPUs; pip install 'jtrust[plan-tpu]'"
        )
    total, usable = _TPU_MEMORY[kind]
    shape = tuple(int(n) for n in dimensions.split("x"))
    return Target(name, "tpu", shape, total * GIB, int(usable * GIB))


def _gpu(name: str, description: str, shape: tuple[int, int]) -> Target:
    memory = re.search(r"\bdevice_memory_size:\s*([1-9]\d*)", description)
    whole = memory and all(
        re.search(rf"\b{field}\b", description)
        for field in ("gpu_device_info", "core_count", "cuda_compute_capability")
    )
    if memory is None or not whole or not re.search(r'\bplatform_name:\s*"CUDA"', description):
        raise checks.BadArgument(
            "target", name, "is no description of an NVIDIA GPU for XLA (a GpuTargetConfigProto as "
            "text, such as those in jtrust/planning/gpus/)"
        )
    if not _has_gpu_compiler():
        raise checks.BadArgument(
            "target", name, "needs XLA's compiler for GPUs; pip install 'jtrust[plan-gpu]'"
        )
    size = int(memory.group(1))
    return Target(name, "gpu", shape, size, int(_gpu_share() * size), description)


def _gpu_share() -> float:
    for variable in _GPU_SHARE_VARIABLES:
        try:
            share = float(os.environ[variable])
        except (KeyError, ValueError):
            continue
        if 0 < share <= 1:
            return share
    return _GPU_SHARE


def _has_gpu_compiler() -> bool:
    if importlib.util.find_spec("jax_plugins") is None:
        return False
    return any(importlib.util.find_spec(f"jax_plugins.xla_cuda{n}") for n in (13, 12))


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise checks.BadArgument(
            "target", path, f"cannot be read ({error.strerror}); name a file with a GPU's "
            f"description, or one of {', '.join(gpus())}"
        ) from error
    except UnicodeDecodeError as error:
        raise checks.BadArgument(
            "target", path, "is no text; name a file with a GPU's description"
        ) from error


def devices_of(target: Target) -> list[Any]:
    """The devices, to compile for; JAX is started, with the CPU alone.

    Raises:
      BadArgument: XLA does not know them.
    """
    import jax
    from jax.experimental import topologies

    if target.platform == "cpu":
        found = jax.devices("cpu")
        if target.shape and target.shape[0] > len(found):
            raise checks.BadArgument(
                "target", target.name, f"JAX has started with {len(found)} CPU devices here"
            )
        return found[:target.shape[0]] if target.shape else found
    try:
        if target.platform == "gpu":
            topology = topologies.get_topology_desc(
                target.name, "cuda", target_config=target.description, topology=target.topology
            )
        else:
            topology = topologies.get_topology_desc(
                platform="tpu", topology_name=target.name, **_hosts(target.shape)
            )
    except (RuntimeError, ValueError) as error:
        raise checks.BadArgument(
            "target", target.name, f"XLA does not take it ({_first_line(error)})"
        ) from error
    return list(topology.devices)


def _hosts(shape: tuple[int, ...]) -> dict[str, Any]:
    """What libtpu must be told of a topology too small for its usual host of 2x2 chips."""
    small = len(shape) == 2 and shape[0] * shape[1] <= 2
    return {"chips_per_host_bounds": [*shape, 1]} if small else {}


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
