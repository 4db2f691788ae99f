"""What this machine's processor can do."""

from pathlib import Path

_CPUINFO = Path("/proc/cpuinfo")


def has_instructions_for_bf16(cpuinfo: Path = _CPUINFO) -> bool:
    """Say whether a product of bf16 matrices is computed in bf16 here, as oneDNN decides it.

    Where it is not (x86 before AVX-512), it takes five to seven times as long as one of float32
    (docs/benchmarks.md); so what is stored in bf16 is computed in float32 there, in serving and in
    training alike. The weights are the same numbers.
    """
    known = set(cpuinfo.read_text().split())
    return {"avx512bw", "avx512vl", "avx512dq"} <= known or "bf16" in known
