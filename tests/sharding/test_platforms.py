"""What a CPU can do is read once, from Linux."""

import pytest

from jaxsft.sharding import platforms


@pytest.mark.parametrize(
    "text, there",
    [
        ("flags\t\t: fpu amx_bf16 amx_tile\n", True),
        ("processor: 0\nflags\t: sse avx512_bf16\n", True),
        ("flags\t: sse avx512f\n", False),
        ("Features\t: fp asimd\n", False),
        ("", False),
    ],
)
def test_the_instructions_of_a_cpu_are_what_linux_tells(tmp_path, text, there):
    file = tmp_path / "cpuinfo"
    file.write_text(text)
    assert platforms.has_bf16(str(file)) is there
    assert platforms.has_bf16(str(tmp_path / "none")) is False
