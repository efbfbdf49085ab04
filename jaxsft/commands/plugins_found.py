"""Lists the plug-ins that are found here, where each comes from, and why one cannot be used.

jaxsft plugins
jaxsft plugins plugins=[my_package.rate]      with a module that is not installed

Those of installed packages are found by their entry points (jaxsft.tasks, jaxsft.metrics, ...).
Each is imported for this list; the exit code is 1 where one cannot be used.
"""

from __future__ import annotations

from jaxsft import plugins
from jaxsft.errors import ConfigError


def main(arguments: list[str]) -> int:
    if arguments:
        raise ConfigError(f"{arguments[0]}: jaxsft plugins takes plugins=[MODULE, ...] only")
    found = plugins.found()
    if not found:
        print(f"no plug-ins; entry points are {', '.join(f'jaxsft.{k}' for k in plugins.KINDS)}")
    broken = 0
    for one in found:
        why = _why_not(one)
        broken += why is not None
        source = one.package or f"{plugins.OPTION}[{one.module}]"
        print(f"{one.kind:<12}{one.name:<20}{source:<28}{one.module}  {why or 'ready'}")
    return 1 if broken else 0


def _why_not(one: plugins.Plugin) -> str | None:
    try:
        plugins.table(one.kind)[one.name]
    except ConfigError as error:
        return str(error)
    return None
