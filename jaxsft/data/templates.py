"""Chat templates: a conversation becomes token ids and a weight per token. One renderer serves training, evaluation and generation.

    text   a sandboxed Jinja template writes it; every character knows whether the template or the data wrote it, and whether it is trained
    cuts   at the special tokens that the template wrote, and at the borders of the trained regions
    ids    each piece between two cuts is encoded by itself, as plain text

So the ids of a generation prompt are a prefix of the training ids by construction, and text in the data that looks like a special token is
spelled out. A template writes its own BOS or there is none. What differs per day (`strftime_now`) is not offered: runs must repeat.
"""

from __future__ import annotations

import bisect
import concurrent.futures
import dataclasses
import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from jinja2 import TemplateSyntaxError

from jaxsft.data.holes import Looked, Session, bases, holes_in, stripped
from jaxsft.data.layouts import Layouts
from jaxsft.data.plans import Layout, Plan, Rendered, plan_of
from jaxsft.data.provenance import UNKNOWN, Environment, Tracked, has_prefix, plain, sources, template_runs, trained_runs
from jaxsft.data.records import Chat, Message
from jaxsft.data.tokenizer import Tokenizer
from jaxsft.errors import ConfigError, DataError

DEFAULT_TOKENS = ("<|system|>", "<|user|>", "<|assistant|>", "<|tool|>", "<|end|>")
DEFAULT_TEMPLATE = (
    "{% for m in messages %}{{ '<|' + m.role + '|>' }}"
    "{% if m.role == 'assistant' %}{% generation %}{{ m.content }}<|end|>{% endgeneration %}{% else %}{{ m.content }}<|end|>{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
_PROBES = (("ab", "cd"), ("ab", "\ncd"), ("ab\n", "cd"), ("ab", " cd"), ("Ab", "cD"))
_PROBE = "probe conversation"
TOGETHER = 1000  # conversations whose pieces are encoded in one call
_HELLO = (Message("user", "a"), Message("assistant", "b"), Message("user", "c"), Message("assistant", "d"))


@dataclasses.dataclass(slots=True)
class _Drafts:
    """The texts of one conversation by (number of messages, prompt), and what writes them."""

    environment: Environment
    template: Any
    session: Session | None = None
    made: dict[tuple[int, bool], Tracked] = dataclasses.field(default_factory=dict)


class Template:
    """A Jinja chat template bound to a tokenizer.

    Attributes:
      name: for messages.
      source: the Jinja text.
      digest: sha256 (hex) of the source and the variables.
      stop_ids: the tokens that end a turn of the assistant, for training and for generation.
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
    ) -> None:
        """Compile and probe the template.

        Args:
          source: Jinja as Hugging Face defines it for chat templates, `{% generation %}` included.
          tokenizer: of the same model.
          name: of the template, for errors.
          require_stop: each trained turn must end with a stop token (data.require_stop).
          allow_unwritten: a message or a tool that the template leaves out is no error (task.allow_unwritten).
          variables: further names that the template reads, such as enable_thinking.

        Raises:
          ConfigError: the template has a syntax error or no stop token, never reads a variable, or the tokenizer cannot encode text in pieces.
        """
        self.name, self.source, self.tokenizer, self.require_stop = name, source, tokenizer, require_stop
        self.allow_unwritten, self.variables = allow_unwritten, dict(variables or {})
        self.digest = hashlib.sha256(json.dumps([source, self.variables], sort_keys=True).encode("ascii")).hexdigest()
        for left, right in _PROBES:
            if tokenizer.decode(tokenizer.encode(left) + tokenizer.encode(right, inside=True)) != left + right:
                raise ConfigError(
                    f"template {name!r} needs a tokenizer that encodes text in pieces, but {left!r} and {right!r} do not give back "
                    f"{left + right!r} (it drops white space, or folds case); use one that keeps a text as it is, or task=lm"
                )
        longest_first = sorted(tokenizer.control_strings, key=len, reverse=True)
        self._special = re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")
        self._environment = Environment(self._special)
        try:
            self._template = self._environment.compiled(source)
        except TemplateSyntaxError as error:
            raise ConfigError(f"template {name!r}, line {error.lineno}: {error.message}") from None
        if unread := sorted(set(self.variables) - self._environment.names(source)):
            raise ConfigError(
                f"task.variables: template {name!r} reads no {unread[0]}; it reads {', '.join(sorted(self._environment.names(source)))}"
            )
        self.stop_ids: tuple[int, ...] = ()
        self._aligned = self._one_bos = True
        self._probe()
        self._layouts = Layouts(self._special, source, self._learnt)

    @classmethod
    def default(cls, tokenizer: Tokenizer, **options: Any) -> Template:
        """The built-in compact template; the tokenizer must know its tokens (those of `Tokenizer.bytes` and `Tokenizer.train` do)."""
        if missing := [token for token in DEFAULT_TOKENS if token not in tokenizer.added]:
            raise ConfigError(
                f"task.template: the tokenizer has no chat template of its own, and that of jaxsft writes {', '.join(missing)}, unknown to it; "
                f"set 'tokenizer.added={json.dumps(missing, separators=(',', ':'))}', whose rows are trained (beside an adapter by "
                "'adapter.train=[\"embed/.*\"]'), or task.template=FILE"
            )
        return cls(DEFAULT_TEMPLATE, tokenizer, "default", **options)

    @classmethod
    def of(cls, tokenizer: Tokenizer, **options: Any) -> Template:
        """The tokenizer's own chat template. Raises ConfigError if it has none."""
        if tokenizer.chat_template is None:
            raise ConfigError("the tokenizer has no chat_template; expected one in tokenizer_config.json or chat_template.jinja")
        return cls(tokenizer.chat_template, tokenizer, "tokenizer", **options)

    def render(self, chat: Chat, where: str) -> Rendered:
        """The whole conversation for training.

        Args:
          chat: ends with an assistant turn.
          where: `file:line` of the row, for errors.

        Raises:
          DataError: the template fails on the row; a generation prompt is no prefix of the text; a trained turn does not end with a stop token;
            there is more than one BOS, or nothing but trained tokens; the template leaves a message or tools out; or data and special tokens cannot
            be told apart.
        """
        return self.render_all([chat], [where])[0]

    def render_all(self, chats: Sequence[Chat], where: Sequence[str]) -> list[Rendered]:
        """`render` of many conversations: the texts of some are encoded, on all cores, while the next are planned."""
        out: list[Rendered] = []
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            waiting: list[tuple] = []
            for start in [*range(0, len(chats), TOGETHER), None]:
                ready, waiting = waiting, []
                if start is not None:
                    part, places = chats[start : start + TOGETHER], where[start : start + TOGETHER]
                    plans = [self._planned(chat, place) for chat, place in zip(part, places, strict=True)]
                    number_of: dict[tuple, int] = {}  # a system message or a list of tools stands in many conversations, and is encoded once
                    texts = [(text(data), inside) for plan, data, _ in plans for text, inside in plan.texts]
                    numbers = [number_of.setdefault(one, len(number_of)) for one in texts]
                    waiting = [(part, places, plans, numbers, pool.submit(self._encoded, list(number_of)))]
                for part, places, plans, numbers, future in ready:
                    encoded = map(future.result().__getitem__, numbers)
                    out += [self._assembled(chat, place, plan, encoded) for chat, place, plan in zip(part, places, plans, strict=True)]
        return out

    def _planned(self, chat: Chat, where: str) -> tuple[Plan, Sequence[Any], Tracked | None]:
        """The plan of a conversation, the data that fill it, and its text if it had to be rendered."""
        if found := self._layouts.find(chat):
            return (*found, None)
        layout = self._whole(chat, where, self._drafts())
        return plan_of(layout, None, self.tokenizer), (), layout.text

    def _encoded(self, texts: Sequence[tuple[str, bool]]) -> list[list[int]]:
        """The ids of texts, each with whether it goes on with what stands before it."""
        found = {flag: iter(self.tokenizer.encode_batch([text for text, inside in texts if inside is flag], flag)) for flag in (False, True)}
        return [next(found[inside]) for _, inside in texts]

    def _learnt(self, chat: Chat, session: Session) -> Plan:
        """The plan of a conversation of holes. Raises Looked or DataError where such conversations must be rendered one by one."""
        drafts = _Drafts(self._layouts.environment, self._layouts.template, session)
        layout = self._whole(chat, _PROBE, drafts)
        # The borders of pieces were compared as numbers, and a hole counts as one character.
        if not has_prefix(layout.text, drafts.made[len(chat.messages) - 1, True]) or UNKNOWN in sources(layout.text, 0, len(layout.text)):
            raise Looked
        if not self.allow_unwritten:
            self._check_all_placed(chat, layout.text, session)
        return plan_of(layout, session, self.tokenizer)

    def _whole(self, chat: Chat, where: str, drafts: _Drafts) -> Layout:
        """The layout of a conversation, of which that of the prompt for its last turn must be the beginning."""
        last = len(chat.messages) - 1
        layout = self._layout(chat.messages, chat.tools, False, where, drafts)
        prompt = self._layout(chat.messages[:last], chat.tools, True, where, drafts)
        # Pieces are borders and special tokens: an answer that is not trained may begin with another text than its prompt, of the same length.
        if layout.pieces[: len(prompt.pieces)] != prompt.pieces or not has_prefix(layout.text, prompt.text):
            raise self._no_prefix(where, last, prompt.text, layout.text)
        return layout

    def _assembled(self, chat: Chat, where: str, planned: tuple, encoded: Iterator[list[int]]) -> Rendered:
        """Ids and weights, checked; `encoded` gives the ids of each text of the plan."""
        plan, data, text = planned
        ids: list[int] = []
        at = [0]
        for part in plan.parts:
            ids += next(encoded) if part is None else part
            at.append(len(ids))
        turns = tuple([(at[start], at[end], index) if start < end else (0, 0, index) for start, end, index in plan.regions])
        rendered = Rendered(ids, turns, tuple([chat.messages[index].weight for _, _, index in turns]), plan, data)
        self._check_turns(rendered, chat, where)
        if text is not None and not self.allow_unwritten:
            self._check_written(chat, text, where)
        self._check_bos(ids, where)
        return rendered

    def prompt(self, messages: Sequence[Message], where: str, tools: tuple = ()) -> list[int]:
        """The ids that precede the next assistant turn after `messages`: a prefix of those that `render` gives. Raises DataError as `render`."""
        layout = self._layout(tuple(messages), tools, True, where, self._drafts())
        ids: list[int] = []
        for number, (start, end, token) in enumerate(layout.pieces):
            inside = layout.inside(number, self.tokenizer)
            ids.extend([token] if token is not None else self.tokenizer.encode(plain(layout.text[start:end]), inside))
        self._check_bos(ids, where)
        return ids

    def written(self, chat: Chat, where: str) -> list[bool]:
        """For each id of `render`, whether the template alone wrote its characters. Raises DataError as `render`."""
        layout = self._layout(chat.messages, chat.tools, False, where, self._drafts())
        out: list[bool] = []
        for number, (start, end, token) in enumerate(layout.pieces):
            piece, inside = layout.text[start:end], layout.inside(number, self.tokenizer)
            out += [True] if token is not None else [not any(sources(piece, a, b)) for a, b in self.tokenizer.offsets(plain(piece), inside)]
        return out

    # --- layout --------------------------------------------------------------------------------------------------------------------------
    def _drafts(self) -> _Drafts:
        return _Drafts(self._environment, self._template)

    def _draft(self, messages: tuple[Message, ...], tools: tuple, prompt: bool, where: str, drafts: _Drafts) -> Tracked:
        key, given = (len(messages), prompt), drafts.environment.given
        if key not in drafts.made:
            roles = self.tokenizer.role_strings()
            drafts.made[key] = drafts.environment.run(
                drafts.template,
                {
                    **roles,
                    **self.variables,
                    # A role is one of four known words, so the template may build its tokens from it.
                    "messages": [{"role": m.role, "content": given(m.content), **given(dict(m.extra))} for m in messages],
                    "tools": given(list(tools)) or None,
                    "documents": None,
                    "add_generation_prompt": prompt,
                },
                f"{where}: template {self.name!r}",
            )
        return drafts.made[key]

    def _layout(self, messages: tuple[Message, ...], tools: tuple, prompt: bool, where: str, drafts: _Drafts) -> Layout:
        text = self._draft(messages, tools, prompt, where, drafts)
        matches = self._matches(text, messages, tools, where)
        turns = [index for index, message in enumerate(messages) if message.role == "assistant"]
        cuts = {len(text)}
        if self._environment.marks_turns:
            spans = trained_runs(text)
            if len(spans) != len(turns):
                raise DataError(
                    f"{where}: template {self.name!r} marks {len(spans)} regions by {{% generation %}}, expected one for each of the {len(turns)} "
                    "assistant turns; fix the template"
                )
            trained = [index for index in turns if messages[index].weight > 0]
            checked = turns if not self._aligned else trained if not prompt else []
        else:
            spans, checked = [(0, 0)] * len(turns), turns
        regions = []
        for index, (start, end) in zip(turns, spans, strict=True):
            if index in checked:
                begin = self._prompt_end(index, messages, tools, text, where, drafts)
                if self._environment.marks_turns and (begin < start or (self._aligned and begin > start)):
                    raise DataError(
                        f"{where}: template {self.name!r}: the generation prompt of message {index + 1} ends with {text[:begin][-20:]!r}, but its "
                        f"trained region follows {text[:start][-20:]!r}; let {{% generation %}} begin where the generation prompt ends"
                    )
                start = begin
                if not self._environment.marks_turns:
                    end = self._turn_end(index, messages, tools, prompt, text, matches, where, drafts)
            end = self._trim(text, start, end, matches)
            cuts |= {start, end}
            regions.append((start, max(start, end), index))
        return Layout(text, regions, self._pieces(text, cuts, matches))

    def _prompt_end(self, index: int, messages: tuple, tools: tuple, text: Tracked, where: str, drafts: _Drafts) -> int:
        """Where the generation prompt for message `index` ends in `text`, of which it must be a prefix."""
        before = self._draft(messages[:index], tools, True, where, drafts)
        if not has_prefix(text, before):
            raise self._no_prefix(where, index, before, text)
        return len(before)

    def _turn_end(self, index: int, messages: tuple, tools: tuple, prompt: bool, text: Tracked, matches: list, where: str, drafts: _Drafts) -> int:
        """Where message `index` ends in `text`, for a template that does not mark its turns: as far as the text that ends with it agrees."""
        if index == len(messages) - 1 and not prompt:
            return len(text)
        alone = self._draft(messages[: index + 1], tools, False, where, drafts)
        if text.startswith(alone):
            return len(alone)
        # What follows the stop token may depend on whether more turns come; the turn itself may not.
        agreed = len(os.path.commonprefix([plain(alone), plain(text)]))
        if drafts.session:
            drafts.session.sure(alone, text, agreed)
        begin = len(self._draft(messages[:index], tools, True, where, drafts))
        ends = [end for start, end, token in matches if token in self.stop_ids and begin <= start and end <= agreed]
        if not ends or not _is_blank(alone, ends[-1], len(alone)):
            raise DataError(
                f"{where}: template {self.name!r} writes message {index + 1} otherwise when later turns follow (it differs at "
                f"{alone[agreed : agreed + 20]!r}), so training differs from generation; mark the turns with {{% generation %}}, or give one per row"
            )
        return ends[-1]

    def _trim(self, text: Tracked, start: int, end: int, matches: list) -> int:
        """`end` moved back to the last stop token of the region, if nothing but white space of the template follows it there."""
        ends = [stop for begin, stop, token in matches if token in self.stop_ids and start <= begin and stop <= end]
        return ends[-1] if ends and _is_blank(text, ends[-1], end) else end

    def _matches(self, text: Tracked, messages: tuple, tools: tuple, where: str) -> list[tuple[int, int, int]]:
        """(start, end, id) of the special tokens that the template itself wrote."""
        found = []
        for begin, stop in template_runs(text):
            for match in self._special.finditer(text, begin, stop):
                start, end = match.span()
                if UNKNOWN in sources(text, start, end) and any(map(self._special.search, _strings(messages, tools))):
                    raise DataError(
                        f"{where}: the row has text that looks like a special token, and template {self.name!r} cannot keep them apart "
                        f"({match.group()!r} comes out of an expression whose parts are lost); write it with + or separate outputs"
                    )
                found.append((start, end, self.tokenizer.special_id(match.group())))
        return found

    def _pieces(self, text: Tracked, cuts: set[int], matches: list) -> list[tuple[int, int, int | None]]:
        """Cut the text; tokens that swallow the white space beside them (lstrip, rstrip) swallow what the template wrote, up to a cut."""
        pieces: list[tuple[int, int, int | None]] = []
        position, borders = 0, sorted(cuts)
        for start, end, token in [*matches, (len(text), len(text), None)]:
            left = start
            flags = self.tokenizer.added[text[start:end]] if token is not None else {}
            while flags.get("lstrip") and left > position and left not in cuts and _is_blank(text, left - 1, left):
                left -= 1
            while position < left:
                stop = min(borders[bisect.bisect_right(borders, position)], left)
                pieces.append((position, stop, None))
                position = stop
            position = end
            while flags.get("rstrip") and position < len(text) and position not in cuts and _is_blank(text, position, position + 1):
                position += 1
            if token is not None:
                pieces.append((left, position, token))
        return pieces

    # --- checks --------------------------------------------------------------------------------------------------------------------------
    def _check_turns(self, rendered: Rendered, chat: Chat, where: str) -> None:
        if sum(end - start for start, end, _ in rendered.turns) >= len(rendered.ids):
            raise DataError(f"{where}: template {self.name!r} leaves no token before the trained ones, so there is no prompt; fix the template")
        for start, end, index in rendered.turns:
            if self.require_stop and chat.messages[index].weight > 0 and (start >= end or rendered.ids[end - 1] not in self.stop_ids):
                found = self.tokenizer.decode(rendered.ids[end - 1 : end], skip_special=False) if start < end else ""
                raise DataError(
                    f"{where}: the last trained token is not a stop token (found {found!r}, expected {self._stop_text()}); "
                    "fix the template or set data.require_stop=false"
                )

    def _check_written(self, chat: Chat, text: Tracked, where: str) -> None:
        """Raises DataError where a message, tool call or tool leaves no trace in the text."""

        def same_without(messages: Sequence[Message], tools: tuple) -> bool:
            return plain(self._draft(tuple(messages), tools, False, where, self._drafts())) == plain(text)

        # Only where nothing but contents can have been written does their length say that all are there.
        plain_row, found = not chat.tools and not any(m.extra for m in chat.messages), sources(text, 0, len(text))
        if not plain_row or UNKNOWN in found or len(text) - found.count(0) < sum(len(m.content.strip()) for m in chat.messages):
            for index, m in enumerate(chat.messages):
                other = dataclasses.replace(m, content="1" if m.content.strip() == "0" else "0")
                if m.content.strip() and same_without([*chat.messages[:index], other, *chat.messages[index + 1 :]], chat.tools):
                    raise self._unwritten(f"the content of message {index + 1} ({m.role})", where)
        for index, m in enumerate(chat.messages):
            if m.extra.get("tool_calls"):
                other = dataclasses.replace(m, extra={k: v for k, v in m.extra.items() if k != "tool_calls"})
                if same_without([*chat.messages[:index], other, *chat.messages[index + 1 :]], chat.tools):
                    raise self._unwritten(f"the tool calls of message {index + 1}", where)
        if chat.tools and same_without(chat.messages, ()):
            raise self._unwritten("the tools", where)

    def _check_all_placed(self, chat: Chat, text: Tracked, session: Session) -> None:
        """Raises Looked unless something of each message that is not blank, of its calls and of the tools is in the text."""
        there = set().union(*[bases(piece) for piece in session.pieces(text) if not isinstance(piece, str)])
        blank = {
            number
            for (kind, expression, *_), answer in session.asked.items()
            if kind == "bool" and not answer and (number := stripped(expression)) is not None
        }
        lost = [i for i in range(len(chat.messages)) if i not in there | blank]
        objects = [m.extra["tool_calls"] for m in chat.messages if m.extra.get("tool_calls")] + ([chat.tools] if chat.tools else [])
        if lost or not all(there & holes_in(part) for part in objects):
            raise Looked

    def _unwritten(self, what: str, where: str) -> DataError:
        return DataError(
            f"{where}: template {self.name!r} does not write {what}, so that it would be lost; use another task.template, or set "
            "task.allow_unwritten=true"
        )

    def _check_bos(self, ids: list[int], where: str) -> None:
        bos = self.tokenizer.bos_id
        if bos is not None and (ids[:2] == [bos, bos] or (self._one_bos and ids.count(bos) > 1)):
            raise DataError(f"{where}: template {self.name!r} writes more than one BOS token, expected at most one; remove it from the template")

    def _no_prefix(self, where: str, index: int, prompt: str, text: str) -> DataError:
        agreed = len(os.path.commonprefix([plain(prompt), plain(text)]))
        return DataError(
            f"{where}: template {self.name!r}: the generation prompt of message {index + 1} is no prefix of the training text (prompt "
            f"{prompt[agreed : agreed + 20]!r}, text {text[agreed : agreed + 20]!r} at character {agreed}); fix the template or its variables"
        )

    def _stop_text(self) -> str:
        return " or ".join(repr(self.tokenizer.decode([token], skip_special=False)) for token in self.stop_ids)

    def _probe(self) -> None:
        """Learn the stop token from one exchange, and from two whether BOS comes once."""
        try:
            try:
                self._learn_stop()
            except DataError:
                if not self._environment.marks_turns:
                    raise
                # The regions may begin before the prompt ends (a prompt that opens a thought); then every turn of every row is measured.
                self._aligned = False
                self._learn_stop()
            bos, text = self.tokenizer.bos_id, self._draft(_HELLO, (), False, _PROBE, self._drafts())
            self._one_bos = bos is None or sum(match[2] == bos for match in self._matches(text, (), (), _PROBE)) <= 1
        except DataError as error:
            raise ConfigError(str(error)) from None

    def _learn_stop(self) -> None:
        layout = self._layout(_HELLO[:2], (), False, _PROBE, self._drafts())
        start, end, _ = layout.regions[-1]
        inside = [match for match in self._matches(layout.text, (), (), _PROBE) if start <= match[0] and match[1] <= end]
        if not inside or not _is_blank(layout.text, inside[-1][1], end):
            raise ConfigError(
                f"template {self.name!r} ends the assistant's turn with {layout.text[start:end][-20:]!r}, expected a special token that tells "
                "the model to stop; fix the template, or take the tokenizer that belongs to it"
            )
        self.stop_ids = (inside[-1][2],)


def _is_blank(text: Tracked, start: int, end: int) -> bool:
    """Whether the template, not the data, wrote these characters, and all are white space."""
    return not any(sources(text, start, end)) and not text[start:end].strip()


def _strings(*values: Any) -> list[str]:
    """Every string inside nested data."""
    found: list[str] = []
    for value in values:
        if isinstance(value, str):
            found.append(value)
        elif isinstance(value, Message):
            found.extend(_strings(value.content, value.extra))
        elif isinstance(value, Mapping):
            found.extend(_strings(*value.keys(), *value.values()))
        elif isinstance(value, list | tuple):
            found.extend(_strings(*value))
    return found
