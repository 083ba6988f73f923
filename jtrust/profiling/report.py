"""A profile as text for a terminal."""

from __future__ import annotations

from jtrust.profiling.profile import Profile


def to_text(found: Profile) -> str:
    """The table of phases, then rates, memory, and how to open the trace."""
    width = max(len(phase.name) for phase in found.phases)
    lines = [
        f"{found.algorithm} on {found.env}, {found.num_envs} environments x "
        f"{found.unroll_length} steps, {found.device} x {found.devices}",
        "",
        f"{'part of an iteration':{width}}  {'ms':>9}  {'share':>6}  how it was measured",
    ]
    lines += [
        f"{p.name:{width}}  {1e3 * p.seconds:9.2f}  {p.share:6.1%}  {p.measured}"
        for p in found.phases
    ]
    whole = sum(phase.seconds for phase in found.phases)
    share = sum(phase.share for phase in found.phases)
    lines += [
        f"{'whole iteration':{width}}  {1e3 * whole:9.2f}  {share:6.1%}  timed alone",
        "",
        f"training       {found.steps_per_second:14,.0f} environment steps/s",
        f"physics alone  {found.random_steps_per_second:14,.0f} environment steps/s",
        f"arithmetic     {found.flops_per_second / 1e9:14,.2f} GFLOP/s of "
        f"{found.peak_flops_per_second / 1e9:,.0f} that this device reached multiplying matrices "
        f"({found.flops_per_second / found.peak_flops_per_second:.1%}; "
        f"{found.flops / 1e9:,.2f} GFLOP an iteration, counted)",
        "",
    ]
    lines += [f"{_size(size):>10}  {name}" for name, size in found.memory.items()]
    lines += [
        "",
        f"trace of iterations of {found.traced_steps} steps, phases named: {found.trace_dir}",
        f"  in Perfetto: open https://ui.perfetto.dev and give it {found.perfetto_file}",
        f"  in XProf:    pip install xprof && xprof --logdir {found.trace_dir}",
    ]
    return "\n".join(lines)


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} GB"
