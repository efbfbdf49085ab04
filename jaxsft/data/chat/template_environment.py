"""Jinja as Hugging Face defines it for chat templates, with strings that record who wrote them.

The templates are foreign code: they run in Jinja's immutable sandbox, and each render may spend so
much and no more (`template_budget`, `template_prices`).
"""

from __future__ import annotations

import contextlib
import functools
import json
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from jinja2 import TemplateError, TemplateSyntaxError, meta, nodes, pass_context
from jinja2.ext import Extension
from jinja2.runtime import LoopContext
from jinja2.sandbox import ImmutableSandboxedEnvironment, SecurityError
from jinja2.utils import Namespace

from jaxsft.data.chat import template_budget as budget
from jaxsft.data.chat import template_prices as prices
from jaxsft.data.chat.provenance import (
    DATA,
    ODD,
    ONLY_SOURCE,
    TRAINED,
    UNKNOWN,
    Tracked,
    join,
    leaves,
    marks_of,
    track,
    trained,
)
from jaxsft.errors import DataError


def _holds_data(value: Any, seen: set[int]) -> bool:
    """Returns whether an argument contains a string of the data.

    An object that occurs in it several times is visited once.
    """
    if isinstance(value, str):
        return isinstance(value, Tracked)
    if not isinstance(value, Mapping | list | tuple | Namespace) or id(value) in seen:
        return False
    seen.add(id(value))
    if isinstance(value, Mapping):
        return any(_holds_data(key, seen) or _holds_data(part, seen) for key, part in value.items())
    return any(
        _holds_data(part, seen)
        for part in (budget.attributes(value).values() if isinstance(value, Namespace) else value)
    )


class _Generation(Extension):
    """The block `{% generation %} ... {% endgeneration %}`: what the model learns to write."""

    tags = frozenset({"generation"})

    def parse(self, parser: Any) -> nodes.Node:
        line = next(parser.stream).lineno
        self.environment.marks_turns = True
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("region"), [], [], body).set_lineno(line)

    def region(self, caller: Callable[[], Tracked]) -> Tracked:
        """Marks the output of the block as a trained region."""
        state = self.environment.state
        state.regions += 1
        flag = TRAINED | (ODD if state.regions % 2 else 0)
        return self.environment.trained(caller(), flag)


class _State(threading.local):
    """The state of one render: its number of regions and its session."""

    regions = 0
    session: Any = None  # of `layouts.py`


class Environment(ImmutableSandboxedEnvironment):
    """Jinja as Hugging Face defines it for chat templates, with tracked strings and a budget.

    Attributes:
      marks_turns: whether the template compiled last has `{% generation %}`.
    """

    intercepted_binops = frozenset(("+", "-", "*", "%", "**"))

    def __init__(self, special: re.Pattern[str]) -> None:
        """Configures Jinja; `special` matches the strings of special tokens."""
        # Not optimized: what is constant would be computed when it is compiled, and written into
        # the program.
        options = {"trim_blocks": True, "lstrip_blocks": True, "optimized": False}
        super().__init__(
            **options, finalize=self._finalize, extensions=[_Generation, "jinja2.ext.loopcontrols"]
        )
        self.special, self.state, self.marks_turns = special, _State(), False
        self.spent = budget.Spent()
        ours = {
            "tojson": self._tojson,
            "join": self._join,
            "replace": (
                lambda text, old, new, count=-1: self._rebuilt(text).replace(
                    str(old), str(new), -1 if count is None else count
                )
            ),
            "safe": lambda value: value,
            "string": self._finalize,
        }
        there = {**self.filters, **ours}
        self.filters = {
            name: self._guarded(name, there[name]) for name in prices.FILTERS if name in there
        }
        self.filters |= {
            "_concat": lambda *values: self.concat(map(self._finalize, values)),
            "_counted": self._counted,
            "_compared": self._compared,
            "_sliced": self._sliced,
            "_pay": self._pay,
        }
        self.tests = {
            name: prices.guarded_test(self.spent, name, test) for name, test in self.tests.items()
        }
        self.globals["raise_exception"] = _raise
        del self.globals["lipsum"]

    def compiled(self, source: str) -> Any:
        """Returns the compiled template.

        Raises jinja2.TemplateSyntaxError, also for one that is too large or uses what is
        not offered.
        """
        self.marks_turns = False
        self.spent.reset()
        with _refused(source):
            tree = self.parse(source)
            prices.instrument(tree)
            tree.set_environment(self)
            return self.template_class.from_code(self, self.compile(tree), self.make_globals(None))

    def names(self, source: str) -> set[str]:
        """Returns the variables that a template expects. Raises as `compiled`."""
        with _refused(source):
            return meta.find_undeclared_variables(self.parse(source))

    def mentions(self, source: str) -> set[str]:
        """Returns the attributes and constant strings of a template.

        Among them is each field that it asks for by name. Raises as `compiled`.
        """
        with _refused(source):
            tree = self.parse(source)
            strings = {
                node.value for node in tree.find_all(nodes.Const) if isinstance(node.value, str)
            }
            return strings | {node.attr for node in tree.find_all(nodes.Getattr)}

    def given(self, value: Any) -> Any:
        """Returns data as the template gets it: tracked."""
        return track(value)

    def trained(self, text: str, flag: int) -> Tracked:
        """Returns the output of a {% generation %} region."""
        return trained(text, flag)

    def run(self, template: Any, variables: dict[str, Any], where: str) -> Tracked:
        """Renders a template.

        Raises DataError, beginning with `where`, for whatever the template raises: it is
        the user's code.
        """
        self.state.regions = 0
        self.spent.reset()
        try:
            return self.concat(template.root_render_func(template.new_context(variables)))
        except TemplateError as error:
            raise DataError(f"{where}: {error.message or type(error).__name__}") from None
        except Exception as error:
            raise DataError(
                f"{where} fails ({type(error).__name__}: {error}); fix the template or the row"
            ) from None

    # --- what Jinja calls
    # ----------------------------------------------------------------------------------------------
    def concat(self, pieces: Iterable[str]) -> Tracked:
        """Joins the output of templates, macros and blocks, and charges for it."""
        pieces = list(pieces)
        self.spent.make(
            sum(map(len, pieces)), max(map(budget.width_of, pieces), default=1), len(pieces) / 8
        )
        return join(pieces)

    def call(self, context: Any, function: Any, /, *args: Any, **options: Any) -> Any:
        """Calls a function for the template and charges for it."""
        # Jinja wraps str.format
        owner = getattr(getattr(function, "__wrapped__", function), "__self__", None)
        name = getattr(function, "__name__", "")
        args, given = tuple(map(self._whole, args)), given_options(options)
        prices.pay_call(self.spent, function, owner, args, given)
        # ", ".join(data): a plain string would forget the marks of its arguments
        if type(owner) is str and name in Tracked.__dict__:
            function, owner = getattr(self._rebuilt(owner), name), None
        return self._kept(super().call(context, function, *args, **options), (owner, args, given))

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Applies an operator that can grow something without bound, or `%`, and charges for it."""
        prices.pay_operator(self.spent, operator, left, right)
        return self._kept(super().call_binop(context, operator, left, right), (left, right))

    # --- tracking
    # ----------------------------------------------------------------------------------------------
    def _whole(self, value: Any) -> Any:
        """Returns a value that can be measured: a generator's items as a list, each charged."""
        lazy = hasattr(type(value), "__next__") and not issubclass(type(value), LoopContext)
        return list(self.spent.iterate(value)) if lazy else value

    def _kept(self, result: Any, given: Any) -> Any:
        """Returns the result, with an unknown source where data went in and its marks were lost."""
        return (
            Tracked(result)
            if isinstance(result, str)
            and not isinstance(result, Tracked)
            and _holds_data(given, set())
            else result
        )

    def _finalize(self, value: Any) -> Any:
        """Returns what `{{ value }}` writes; a list or dict is one string that may hold data."""
        if isinstance(value, str):
            return value
        self.spent.make(4 * budget.size_of(value).chars, 1)
        return self._kept(str(value), value)

    def _rebuilt(self, value: Any) -> Tracked:
        return join((self._finalize(value),))

    def _guarded(self, name: str, function: Callable) -> Callable:
        """Wraps a filter so that it is charged for its input and output."""
        cost, first = prices.FILTERS[name], 1 if hasattr(function, "jinja_pass_arg") else 0

        @functools.wraps(function)
        def filtered(*args: Any, **options: Any) -> Any:
            before, args = args[:first], args[first:]
            args = (
                (self.spent.iterate(args[0]), *args[1:])
                if name in prices.LAZY and args
                else tuple(map(self._whole, args))
            )
            budget.check_numbers(*args, *options.values())
            cost(self.spent, *args, **options)
            result = self._kept(function(*before, *args, **options), (args, options))
            return self.spent.iterate(result) if hasattr(type(result), "__next__") else result

        return filtered

    def _join(
        self, values: Iterable[Any], d: Any = "", attribute: str | int | None = None
    ) -> Tracked:
        if attribute is not None:
            values = [self.getitem(value, attribute) for value in values]
        return join([self._finalize(value) for value in values], self._finalize(d))

    def _tojson(
        self,
        value: Any,
        ensure_ascii: bool = False,
        indent: int | None = None,
        separators: Any = None,
        sort_keys: bool = False,
    ) -> str:
        """Returns JSON as Hugging Face writes it: characters and the order of keys stay.

        It counts as data where data went in.
        """
        text = json.dumps(
            value,
            ensure_ascii=ensure_ascii,
            indent=indent,
            separators=tuple(separators) if separators else None,
            sort_keys=sort_keys,
        )
        found = list(leaves(value))
        if not any(isinstance(leaf, Tracked) for leaf in found):
            return text
        mixed = any(
            self.special.search(leaf) and set(marks_of(leaf).translate(ONLY_SOURCE)) != {DATA}
            for leaf in found
        )
        return Tracked(text, bytes([UNKNOWN if mixed else DATA]) * len(text))

    @staticmethod
    @pass_context  # keeps Jinja from running it when it compiles
    def _counted(context: Any, values: Iterable[Any]) -> Iterator[Any]:
        return context.environment.spent.iterate(values)

    @staticmethod
    @pass_context
    def _compared(context: Any, left: Any, name: str, right: Any) -> Any:
        prices.pay_comparison(context.environment.spent, name, left, right)
        return prices.COMPARE[name](left, right)

    @staticmethod
    @pass_context
    def _sliced(context: Any, value: Any, start: Any, stop: Any, step: Any) -> Any:
        prices.pay_slice(context.environment.spent, value, slice(start, stop, step))
        return value[start:stop:step]

    @staticmethod
    @pass_context
    def _pay(context: Any, _: None, steps: int) -> None:
        context.environment.spent.pay(steps)


@contextlib.contextmanager
def _refused(source: str) -> Iterator[None]:
    """Raises jinja2.TemplateSyntaxError for a template that is too large, and for whatever fails
    while it is parsed and compiled in the block.
    """
    if len(source) > budget.CHARACTERS:
        raise TemplateSyntaxError(
            f"it has {len(source):,} characters, more than {budget.CHARACTERS:,}, which no chat"
            " template needs",
            1,
        )
    try:
        yield
    except SecurityError as error:
        raise TemplateSyntaxError(str(error.message), 1) from None
    except TemplateError:
        raise
    except (RecursionError, MemoryError):
        raise TemplateSyntaxError("it nests too deep", 1) from None
    # what Python says of the program that Jinja made of it
    except (SyntaxError, ValueError, ArithmeticError) as error:
        raise TemplateSyntaxError(str(error), 1) from None


def given_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the named arguments of a call, without the loop and block variables of Jinja."""
    return {
        name: value for name, value in options.items() if name not in ("_loop_vars", "_block_vars")
    }


def _raise(message: str) -> None:
    raise TemplateError(str(message))
