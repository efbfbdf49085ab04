"""Chat templates: a conversation becomes token ids and a weight per token.

One renderer serves training, evaluation and generation.

    text   a sandboxed Jinja template writes it; every character knows whether the template or the
      data wrote it, and whether it is trained
    cuts   at the special tokens that the template wrote, and at the borders of the trained regions
    ids    each piece between two cuts is encoded by itself, as plain text

So the ids of a generation prompt are a prefix of the training ids by construction, and text in the
data that looks like a special token is spelled out. A template writes its own BOS or there is none.
A run must repeat, so there is no clock: `strftime_now` writes a date that is given.

Each turn is trained behind the text that generation would put before it. A template that writes
earlier turns otherwise once later ones follow (that drops their thoughts, say) gives a conversation
several texts: each trains the turns that stand in it as they are written when they are last.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import hashlib
import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from jinja2 import TemplateSyntaxError

from jaxsft.data.chat.chat_plan import ChatLayout, ChatPlan, Rendered, plan_of
from jaxsft.data.chat.drafting import Drafting
from jaxsft.data.chat.left_out import Losses
from jaxsft.data.chat.named_templates import NAMED, OURS
from jaxsft.data.chat.provenance import UNKNOWN, Tracked, plain, sources
from jaxsft.data.chat.render_cache import LayoutCache
from jaxsft.data.chat.symbolic_values import Looked, SymbolicRun
from jaxsft.data.chat.template_environment import Environment
from jaxsft.data.chat.template_probe import HELLO, PROBE, check_tokenizer, probe, what_fits
from jaxsft.data.chat.template_variables import CLOCK, DATE, check, clock
from jaxsft.data.chat.turns import NoPrefix, Turns, clean_cut, may_be_unclean
from jaxsft.data.records import Chat, Message
from jaxsft.data.tokenizers.tokenizer import Tokenizer
from jaxsft.errors import ConfigError, DataError

DEFAULT_TOKENS = OURS
DEFAULT_TEMPLATE = (
    "{% for m in messages %}{{ '<|' + m.role + '|>' }}{% if m.role == 'assistant' %}{% generation"
    " %}{{ m.content }}<|end|>{% endgeneration %}{% else %}{{ m.content }}<|end|>{% endif %}{%"
    " endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
TOGETHER = 1000  # conversations whose pieces are encoded in one call


class Template:
    """A Jinja chat template bound to a tokenizer.

    Attributes:
      name: for messages.
      source: the Jinja text.
      tool_use: that of conversations with tools, where it is another one.
      digest: sha256 (hex) of the sources and the variables.
      stop_ids: the tokens that end a turn of the assistant, for training and for generation; empty
        where the template writes none there.
    """

    def __init__(
        self,
        source: str,
        tokenizer: Tokenizer,
        name: str,
        *,
        require_stop: bool = True,
        allow_unwritten: bool = False,
        variables: Mapping[str, Any] | None = None,
        tool_use: str | None = None,
    ) -> None:
        """Compiles and probes the template.

        Args:
          source: Jinja as Hugging Face defines it for chat templates, `{% generation %}` included.
          tokenizer: of the same model.
          name: of the template, for errors.
          require_stop: each trained turn must end with a stop token (data.require_stop).
          allow_unwritten: a message or a tool that the template leaves out is no error
            (task.allow_unwritten).
          variables: further names that the template reads, such as enable_thinking; `date` is what
            its `strftime_now` writes.
          tool_use: as the attribute.

        Raises:
          ConfigError: the template has a syntax error, cannot write a question and its answer, or
            never reads a variable; or the tokenizer cannot encode text in pieces.
        """
        self.name, self.source, self.tokenizer = name, source, tokenizer
        self.require_stop, self.allow_unwritten = require_stop, allow_unwritten
        self.variables, self.tool_use = dict(variables or {}), tool_use
        hashed = [source, self.variables, *([] if tool_use is None else [tool_use])]
        self.digest = hashlib.sha256(json.dumps(hashed, sort_keys=True).encode("ascii")).hexdigest()
        check_tokenizer(tokenizer, name)
        longest_first = sorted(tokenizer.control_strings, key=len, reverse=True)
        special = re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")
        given = clock(self.variables)
        self._environment = Environment(special)
        try:
            self._names = self._environment.names(source)
            tools = set() if tool_use is None else self._environment.names(tool_use)
            self._environment.globals |= given
            self._template = self._environment.compiled(source)
        except TemplateSyntaxError as error:
            raise ConfigError(f"template {name!r}, line {error.lineno}: {error.message}") from None
        check(self.variables, self._names | tools, name)
        self._drafts = Drafting(
            name, self._environment, self._template, tokenizer.role_strings(), self.variables
        )
        self._losses = Losses(name, self._environment.mentions(source), self._drafts)
        self._turns = Turns(name, tokenizer, special, self._environment.marks_turns)
        self._turns.stop_ids, self._one_bos = probe(self._drafts, self._turns, tokenizer.bos_id)
        self._with_tools = None if tool_use is None else self._of_tools(tool_use, tools)
        if self._with_tools is not None:
            stops = (*self.stop_ids, *self._with_tools.stop_ids)
            self._turns.stop_ids = tuple(dict.fromkeys(stops))
        self._layouts = LayoutCache(special, source, self._learnt, given)

    def _of_tools(self, source: str, names: Collection[str]) -> Template:
        """Makes the template of conversations with tools, with the variables that it reads."""
        its = {
            key: value
            for key, value in self.variables.items()
            if key in names or (key == DATE and CLOCK in names)
        }
        return Template(
            source,
            self.tokenizer,
            f"{self.name}, tool_use",
            require_stop=self.require_stop,
            allow_unwritten=self.allow_unwritten,
            variables=its,
        )

    @property
    def stop_ids(self) -> tuple[int, ...]:
        return self._turns.stop_ids

    @classmethod
    def default(cls, tokenizer: Tokenizer, **options: Any) -> Template:
        """Returns the built-in compact template.

        The tokenizer must have its tokens (those of `Tokenizer.bytes` and `Tokenizer.train`
        do). Raises ConfigError.
        """
        if missing := [token for token in DEFAULT_TOKENS if token not in tokenizer.added]:
            raise ConfigError(
                "task.template: the tokenizer has no chat template of its own, and that of jaxsft"
                f" writes {', '.join(missing)}, unknown to it; set task.template={'|'.join(NAMED)},"
                " which adds its tokens,"
                f" 'tokenizer.added={json.dumps(missing, separators=(',', ':'))}', whose rows are"
                " trained (beside an adapter by 'adapter.train=[\"embed/.*\"]'), or"
                " task.template=FILE"
            )
        return cls(DEFAULT_TEMPLATE, tokenizer, "default", **options)

    @classmethod
    def of(cls, tokenizer: Tokenizer, **options: Any) -> Template:
        """Returns the tokenizer's own chat template, with its template `tool_use` if any.

        Raises ConfigError if it has none.
        """
        if tokenizer.chat_template is None:
            if tokenizer.chat_templates:
                names = sorted(tokenizer.chat_templates)
                raise ConfigError(
                    f"chat_template names {names}, expected one called 'default'; choose by"
                    f" task.template={'|'.join(names)}"
                )
            raise ConfigError(
                "the tokenizer has no chat_template; expected one in tokenizer_config.json or"
                " chat_template.jinja"
            )
        return cls(
            tokenizer.chat_template,
            tokenizer,
            "tokenizer",
            tool_use=tokenizer.chat_templates.get("tool_use"),
            **options,
        )

    @property
    def stored(self) -> dict[str, Any]:
        """Returns what a run stores of the template, for `Template.from_stored`."""
        kept = {
            "name": self.name,
            "source": self.source,
            "variables": self.variables,
            "sha256": self.digest,
        }
        return kept if self.tool_use is None else kept | {"tool_use": self.tool_use}

    @classmethod
    def from_stored(
        cls, stored: Mapping[str, Any], tokenizer: Tokenizer, **options: Any
    ) -> Template:
        return cls(
            stored["source"],
            tokenizer,
            stored["name"],
            variables=stored["variables"],
            tool_use=stored.get("tool_use"),
            **options,
        )

    # --- training
    # ----------------------------------------------------------------------------------------------
    def render(self, chat: Chat, where: str) -> Rendered:
        """Renders the whole conversation for training.

        Args:
          chat: ends with an assistant turn.
          where: `file:line` of the row, for errors.

        Raises:
          DataError: the template fails on the row; a generation prompt is no prefix of what is
            trained; a trained turn does not end with a stop token; there is more than one BOS, or
            nothing but trained tokens; the template leaves a message, a thought, tools or an
            unknown field out; or data and special tokens cannot be told apart.
          ConfigError: the template writes no stop token.
        """
        return self.render_all([chat], [where])[0]

    def render_all(self, chats: Sequence[Chat], where: Sequence[str]) -> list[Rendered]:
        """Renders many conversations as `render` does.

        The texts of some are encoded, on all cores, while the next are planned.
        """
        if self.require_stop and not self.stop_ids:
            raise self._no_stop()
        if self._with_tools is not None and (
            mine := [i for i, chat in enumerate(chats) if chat.tools]
        ):
            others = [i for i, chat in enumerate(chats) if not chat.tools]
            out: list[Rendered] = [None] * len(chats)  # type: ignore[list-item]
            for template, those in ((self._with_tools, mine), (self, others)):
                for i, rendered in zip(
                    those,
                    template.render_all([chats[i] for i in those], [where[i] for i in those]),
                    strict=True,
                ):
                    out[i] = rendered
            return out
        out = []
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            waiting: list[tuple] = []
            for start in [*range(0, len(chats), TOGETHER), None]:
                ready, waiting = waiting, []
                if start is not None:
                    part, places = chats[start : start + TOGETHER], where[start : start + TOGETHER]
                    plans = [
                        self._planned(chat, place) for chat, place in zip(part, places, strict=True)
                    ]
                    # a system message or a list of tools stands in many conversations, and is
                    # encoded once
                    number_of: dict[tuple, int] = {}
                    texts = [
                        (text(data), inside)
                        for those, data, _ in plans
                        for plan in those
                        for text, inside in plan.texts
                    ]
                    numbers = [number_of.setdefault(one, len(number_of)) for one in texts]
                    waiting = [
                        (part, places, plans, numbers, pool.submit(self._encoded, list(number_of)))
                    ]
                for part, places, plans, numbers, future in ready:
                    encoded = map(future.result().__getitem__, numbers)
                    out += [
                        self._assembled(chat, place, plan, encoded)
                        for chat, place, plan in zip(part, places, plans, strict=True)
                    ]
        return out

    def _planned(
        self, chat: Chat, where: str
    ) -> tuple[tuple[ChatPlan, ...], Sequence[Any], Tracked | None]:
        """Returns the plans of a conversation, their data, and the text if it was rendered.

        There is one plan for each of its texts.
        """
        if not self.allow_unwritten:
            self._losses.check_fields(chat, where)
        if (
            (found := self._layouts.find(chat))
            and all(self._is_clean(plan, found[1]) for plan in found[0])
            and (self.allow_unwritten or not self._losses.lost(chat, *found))
        ):
            return (*found, None)
        draft = self._drafts(chat.tools, where)
        try:
            layouts = self._turns.layouts(chat.messages, draft, where, None)
        except NoPrefix as error:
            looked = self._drafts, self._turns, self._names
            hint = what_fits(*looked, error.messages, chat.tools, where)
            raise DataError(f"{error}; {hint}") from None
        if not self.allow_unwritten:
            self._losses.check_thoughts(chat, layouts, where)
        return (
            tuple(plan_of(layout, None, self.tokenizer) for layout in layouts),
            (),
            draft(chat.messages, False),
        )

    def _is_clean(self, plan: ChatPlan, data: Sequence[Any]) -> bool:
        """Returns whether the tokens before later turns are those that generation would see.

        Generation sees a text that is not cut at earlier turns.
        """
        texts = ((before(data), behind(data), inside) for before, behind, inside in plan.borders)
        return all(clean_cut(self.tokenizer, *one) for one in texts if may_be_unclean(*one[:2]))

    def _encoded(self, texts: Sequence[tuple[str, bool]]) -> list[list[int]]:
        """Encodes texts, each with whether it continues what stands before it."""
        found = {
            flag: iter(
                self.tokenizer.encode_batch(
                    [text for text, inside in texts if inside is flag], flag
                )
            )
            for flag in (False, True)
        }
        return [next(found[inside]) for _, inside in texts]

    def _learnt(self, chat: Chat, session: SymbolicRun) -> tuple[ChatPlan, ...]:
        """Returns the plans of a symbolic conversation.

        Raises Looked or DataError where such conversations must be rendered one by one.
        """
        symbolic = dataclasses.replace(
            self._drafts,
            environment=self._layouts.environment,
            template=self._layouts.template,
        )
        draft = symbolic(chat.tools, PROBE)
        layouts = self._turns.layouts(chat.messages, draft, PROBE, session)
        text = draft(chat.messages, False)
        for one in (text, *(layout.text for layout in layouts)):
            if UNKNOWN in sources(one, 0, len(one)) or self._swallows_data(one):
                raise Looked
        if not self.allow_unwritten:
            self._losses.check_all_placed(chat, text, layouts, session)
        return tuple(plan_of(layout, session, self.tokenizer) for layout in layouts)

    def _swallows_data(self, text: Tracked) -> bool:
        """Returns whether a special token that swallows white space stands beside data."""
        flags = {
            name: (token.get("lstrip"), token.get("rstrip"))
            for name, token in self.tokenizer.added.items()
        }
        if not any(map(any, flags.values())):
            return False
        data = sources(text, 0, len(text))
        for start, end, _ in self._turns.matches(text, (), PROBE):
            left, right = flags[plain(text[start:end])]
            before, behind = (
                len(plain(text[:start]).rstrip()) - 1,
                len(text) - len(plain(text[end:]).lstrip()),
            )
            if (left and before >= 0 and data[before]) or (
                right and behind < len(text) and data[behind]
            ):
                return True
        return False

    def _assembled(
        self, chat: Chat, where: str, planned: tuple, encoded: Iterator[list[int]]
    ) -> Rendered:
        """Assembles ids and weights of each text, and checks them.

        `encoded` gives the ids of each piece of the plans.
        """
        plans, data, text = planned
        made = []
        for plan in plans:
            ids: list[int] = []
            at = [0]
            for part in plan.parts:
                ids += next(encoded) if part is None else part
                at.append(len(ids))
            turns = tuple([(at[start], at[end], index) for start, end, index in plan.regions])
            rendered = Rendered(
                ids,
                turns,
                tuple([chat.messages[index].weight for _, _, index in turns]),
                plan,
                data,
            )
            self._check_turns(rendered, where)
            made.append(rendered)
        if text is not None and not self.allow_unwritten:
            self._losses.check_written(chat, text, where)
            if lost := self._losses.lost(chat, plans, data):
                raise self._losses.cut(lost, where)
        for rendered in made:
            self._check_bos(rendered.ids, where)
        return made[0] if len(made) == 1 else dataclasses.replace(made[0], others=tuple(made[1:]))

    # --- generation and inspection
    # ----------------------------------------------------------------------------------------------
    def prompt(self, messages: Sequence[Message], where: str, tools: tuple = ()) -> list[int]:
        """Returns the ids before the next assistant turn, as training has them.

        Raises DataError as `render`.
        """
        if tools and self._with_tools is not None:
            return self._with_tools.prompt(messages, where, tools)
        text = self._drafts(tools, where)(messages, True)
        if not self.allow_unwritten:
            self._losses.check_prompt(messages, tools, text, where)
        pieces = self._turns.pieces(
            text, {len(text)}, self._turns.matches(text, (messages, tools), where)
        )
        layout, ids = ChatLayout(text, [], pieces), []
        for number, (start, end, token) in enumerate(pieces):
            inside = layout.inside(number, self.tokenizer)
            ids.extend(
                [token]
                if token is not None
                else self.tokenizer.encode(plain(text[start:end]), inside)
            )
        self._check_bos(ids[:2], where)
        return ids

    def written(self, chat: Chat, where: str) -> list[bool]:
        """Returns for each id of `render` whether the template alone wrote its characters.

        Ids of its further texts follow. Raises DataError as `render`.
        """
        if chat.tools and self._with_tools is not None:
            return self._with_tools.written(chat, where)
        out: list[bool] = []
        for layout in self._turns.layouts(
            chat.messages, self._drafts(chat.tools, where), where, None
        ):
            for number, (start, end, token) in enumerate(layout.pieces):
                piece, inside = layout.text[start:end], layout.inside(number, self.tokenizer)
                out += (
                    [True]
                    if token is not None
                    else [
                        not any(sources(piece, a, b))
                        for a, b in self.tokenizer.offsets(plain(piece), inside)
                    ]
                )
        return out

    # --- checks
    # ----------------------------------------------------------------------------------------------
    def _check_turns(self, rendered: Rendered, where: str) -> None:
        if rendered.turns and sum(end - start for start, end, _ in rendered.turns) >= len(
            rendered.ids
        ):
            raise DataError(
                f"{where}: template {self.name!r} leaves no token before the trained ones, so there"
                " is no prompt; fix the template"
            )
        last = {index: (start, end) for start, end, index in rendered.turns}
        for start, end in last.values() if self.require_stop else ():
            if start >= end or rendered.ids[end - 1] not in self.stop_ids:
                found = (
                    self.tokenizer.decode(rendered.ids[end - 1 : end], skip_special=False)
                    if start < end
                    else ""
                )
                raise DataError(
                    f"{where}: the last trained token is not a stop token (found {found!r},"
                    f" expected {self._stop_text()}); fix the template or set"
                    " data.require_stop=false"
                )

    def _check_bos(self, ids: list[int], where: str) -> None:
        bos = self.tokenizer.bos_id
        if bos is not None and (ids[:2] == [bos, bos] or (self._one_bos and ids.count(bos) > 1)):
            raise DataError(
                f"{where}: template {self.name!r} writes more than one BOS token, expected at most"
                " one; remove it from the template"
            )

    def _stop_text(self) -> str:
        return " or ".join(
            repr(self.tokenizer.decode([token], skip_special=False)) for token in self.stop_ids
        )

    def _no_stop(self) -> ConfigError:
        text = self._drafts((), PROBE)(HELLO[:2], False)
        return ConfigError(
            f"template {self.name!r} ends the assistant's turn with {plain(text)[-20:]!r}, expected"
            " a special token that tells the model to stop; fix the template, take the tokenizer"
            " that belongs to it, or set data.require_stop=false"
        )
