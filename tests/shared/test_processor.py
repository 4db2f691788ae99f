"""Whether bf16 is computed in bf16: by the processor's own account."""

from pathlib import Path

import pytest

from shared.processor import has_instructions_for_bf16


@pytest.mark.parametrize(
    ("flags", "known"),
    [
        ("flags\t\t: fpu sse2 avx avx2 fma", False),
        ("flags\t\t: fpu avx2 avx512f avx512cd", False),
        ("flags\t\t: fpu avx2 avx512f avx512dq avx512bw avx512vl", True),
        ("Features\t: fp asimd bf16 i8mm", True),
    ],
)
def test_avx_512_and_arms_bf16_count(tmp_path: Path, flags: str, known: bool) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(f"processor\t: 0\n{flags}\n\n")
    assert has_instructions_for_bf16(cpuinfo) is known
