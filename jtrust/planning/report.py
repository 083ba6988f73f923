"""A plan as text for a terminal."""

from __future__ import annotations

from typing import cast

from jtrust.planning.plan import NOT_RUN, Plan


def to_text(found: Plan) -> str:
    """What fits, and what one iteration's program does."""
    many = f"{found.members:,} runs of " if found.members > 1 else ""
    lines = [
        f"{found.algorithm} on {found.env}, {many}{found.num_envs:,} environments x "
        f"{found.unroll_length} steps, {found.device} x {found.devices} ({found.target})",
        "",
        _line("fits", _fits(found)),
    ]
    if found.memory:
        parts = ", ".join(f"{name} {_size(size)}" for name, size in found.memory.items())
        lines.append(_line("", parts, mark=False))
    if found.programs_compiled > 1:
        lines.append(_line("at most", _largest(found)))
    lines.append(_line(
        "compiled in", f"{found.compile_seconds:.1f} s on this machine", mark=False
    ))
    if found.launches is not None:
        lines += _launches(found)
    if found.collectives is not None:
        kinds = ", ".join(f"{n:,} {kind}" for kind, n in found.collectives.items())
        lines.append(_line("collectives", f"{kinds or 'none'} an iteration"))
    return "\n".join(lines)


def _line(name: str, text: str, mark: bool = True) -> str:
    return f"{name:12} {text}" + f" ({NOT_RUN})" * mark


def _fits(found: Plan) -> str:
    needed = "more" if found.memory_bytes is None else _size(found.memory_bytes)
    word = "yes" if found.fits else "no"
    said = (
        f"{word}: {needed} a device, of {_size(found.usable_memory_bytes)} that a program may have "
        f"and {_size(found.device_memory_bytes)} that there are"
    )
    return said if found.refused is None else f"{said}; XLA: {found.refused[:200]}"


def _largest(found: Plan) -> str:
    if found.largest_num_envs is None:
        said = f"not even {found.smallest_too_large:,} environments fit"
    else:
        said = f"{found.largest_num_envs:,} environments fit"
        if found.smallest_too_large is None:
            said += ", and no more were tried"
        else:
            said += f", {found.smallest_too_large:,} do not"
    return f"{said}; {found.programs_compiled} programs compiled"


def _launches(found: Plan) -> list[str]:
    step = "" if found.launches_per_step is None else (
        f", {found.launches_per_step:,g} a step of all environments"
    )
    lines = [_line("launches", f"{found.launches:,} an iteration{step}")]
    lines += [
        f"{'':12} {count:9,} {name.replace('_', ' ')}"
        for name, count in cast(dict[str, int], found.launches_by_phase).items()
    ]
    if found.uncounted_loops:
        loops = f"{found.uncounted_loops} loop" + "s" * (found.uncounted_loops > 1)
        lines.append(_line(
            "", f"at least: {loops} without a fixed number of trips, each counted once", mark=False
        ))
    return lines


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} GB"
