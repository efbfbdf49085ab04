"""How XLA compiles for the tests: the programs are tiny and run once, so a compilation costs far
more than it saves.

No import of jax here: the flags are read when it starts.
"""

# LLVM's optimisations take two to four times as long as they save, and the emitters of fusions,
# which go through MLIR, three times as long as those before them (both measured).
FLAGS = ("--xla_backend_optimization_level=0", "--xla_cpu_use_fusion_emitters=false")


def flags(devices: int | None = None, given: str = "") -> str:
    """Returns XLA_FLAGS for a process with so many virtual devices; what `given` sets, stays."""
    count = () if devices is None else (f"--xla_force_host_platform_device_count={devices}",)
    names = {flag.partition("=")[0] for flag in given.split()}
    return " ".join(
        [*given.split(), *(f for f in (*count, *FLAGS) if f.partition("=")[0] not in names)]
    )
