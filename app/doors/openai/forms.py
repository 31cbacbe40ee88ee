"""Answers in a form: ``response_format``, and tools that the client demands (``tool_choice``).

Coze knows neither, so the bot is told the form in words, and what it answers is looked at: best effort. A
tool call made so is ours, not Coze's: nobody waits for its output, which begins a new chat.
"""

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Final, Literal, NamedTuple, NoReturn, ParamSpec, TypeVar

import jsonschema_rs
import orjson

from app.doors.openai.bodies import ChatCompletionRequest
from app.doors.openai.dialog import invalid, too_long
from app.doors.openai.schema_cost import Cost, cost_of, without_unchecked
from app.doors.openai.schema_work import Work
from app.exceptions import ServiceError, ValidationFailed

_P = ParamSpec("_P")
_T = TypeVar("_T")
MAX_INSTRUCTION: Final = 100_000
"""Characters; of a message of the history, which it becomes."""
_FENCED: Final = re.compile(r"```[^\n`]*\n(.*?)```", re.DOTALL)
_ONLY: Final = "Write nothing else: no other words and no code fence."
_BACKTRACKS: Final = 100
"""Steps of a regular expression; a schema and an answer can be made to go on for ever."""
_FEW_BYTES: Final = 600
"""So long a schema, without expressions, is a check within a millisecond."""
_BYTES_OF_A_BYTE: Final = 64
"""Of memory, that a check takes for each byte of its schema; and for each unit of what it takes to be made,
since expressions are short."""
_UNFIT: Final = "it is not valid against the schema"
_TOO_LONG: Final = "it is too long to be checked against this schema"

FormKind = Literal["json", "tool_calls", "function_call"]


class Function(NamedTuple):
    """One that may be called. ``parameters``: a JSON Schema."""

    name: str
    description: str
    parameters: dict[str, Any]
    strict: bool


class Made(NamedTuple):
    """``work``: what it took to be made."""

    validator: jsonschema_rs.Validator
    cost: Cost
    work: int


class Check:
    """Of a JSON value, made at its first use, and kept for the next ones that have the same schema. To make
    it and to apply it are both work that cannot be broken off, so both are bounded; what takes long to be
    made is made beside the event loop (``reading``).

    ``where``: the field that the schema stands in; ``work``: what the request has left.
    """

    def __init__(self, schema: Any, where: str, work: Work) -> None:
        self._schema = schema
        self._where = where
        self._work = work
        self._written: tuple[bytes, int] | None = None

    def made(self) -> Made:
        """Raises ``ValidationFailed``."""
        key, length = self._key()
        found: Made | None = self._work.made.get(key)
        if found is None:
            found = self._make(Work() if self._work.has_paid(key) else self._work)
            self._work.made.keep(key, found, _BYTES_OF_A_BYTE * (length + found.work))
        elif not self._work.has_paid(key):
            try:
                self._work.spend(found.work)
            except ValueError as error:
                raise self._refused(error) from None
        self._work.paid(key)
        return found

    @property
    def bytes_to_make(self) -> int:
        """Of its schema; 0 where there is the check already."""
        key, length = self._key()
        return 0 if key in self._work.made else length

    def _key(self) -> tuple[bytes, int]:
        """What its schema is known by, and how long it is. An expression is as long as nothing may be that is
        made at once: each may take milliseconds."""
        if self._written is None:
            written = orjson.dumps(self._schema)
            length = len(written) + _FEW_BYTES * (b'"patternProperties"' in written)
            self._written = blake2b(written, digest_size=16).digest(), length
        return self._written

    def fault(self, value: Any, text: str) -> str | None:
        """Why ``value``, of which ``text`` is the JSON, does not fit; None where it does."""
        try:
            made = self.made()
        except ValidationFailed:  # an earlier version took it, or the request has too many of them
            return _TOO_LONG
        if not self._work.allows(made.cost.check_steps(text)):
            return _TOO_LONG
        if made.validator.is_valid(value):
            return None
        if not self._work.allows(made.cost.reason_steps(value, text)):
            return _UNFIT
        try:
            made.validator.validate(value)  # ends at the first fault
        except jsonschema_rs.ValidationError as fault:
            return _reason(fault)
        return _UNFIT

    def _make(self, work: Work) -> Made:
        """Nothing is fetched: what a schema refers to has to be in it."""
        before = work.left
        try:
            cost = cost_of(self._schema, work)
            validator = jsonschema_rs.validator_for(
                without_unchecked(self._schema),
                retriever=_refuse,
                pattern_options=jsonschema_rs.FancyRegexOptions(backtrack_limit=_BACKTRACKS),
                validate_formats=False,
            )
            return Made(validator, cost, before - work.left)
        except ValueError as error:
            raise self._refused(error) from None

    def _refused(self, error: ValueError) -> ServiceError:
        words = str(error).strip().partition("\n")[0]
        return invalid(self._where, f"is no JSON Schema that can be checked: {words[:300]}")


class Shaped(NamedTuple):
    """An answer as it was asked for: one of the three. ``call``: name and arguments, the latter as JSON."""

    content: str | None = None
    refusal: str | None = None
    call: dict[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Form:
    """``instruction``: for the bot. ``checks``: of the arguments of each function that may be called, by its
    name; where JSON is asked for, of that, under no name. ``strict``: what does not fit, or is too long
    to be checked, is refused; else it is passed on as the bot wrote it. ``work``: what the request has left.
    """

    kind: FormKind
    instruction: str
    checks: Mapping[str, Check]
    work: Work
    strict: bool = False

    @property
    def is_soon_made(self) -> bool:
        """Whether what its checks still lack takes no more than a millisecond."""
        return sum(check.bytes_to_make for check in self.checks.values()) <= _FEW_BYTES

    def make(self) -> None:
        """All its checks. Raises ``ValidationFailed``."""
        for check in self.checks.values():
            check.made()

    def read(self, text: str) -> Shaped:
        """``text``: the whole answer."""
        reason = "it holds no JSON"
        for source in _candidates(text):
            try:
                value = orjson.loads(source)
            except orjson.JSONDecodeError:
                continue
            for name, part in self._parts(value):
                written = source if part is value else _json(part)
                fault = self.checks[name].fault(part, written)
                if fault is None:
                    return self._fitting(name, written)
                reason = fault
            break
        if not self.strict:
            return Shaped(content=text)
        return Shaped(refusal=f"The bot's answer does not have the form that was asked for: {reason}")

    def _parts(self, value: Any) -> Iterator[tuple[str, Any]]:
        """What ``value`` may be, under which name: a call with its name, or arguments alone."""
        if isinstance(value, dict) and "arguments" in value and value.get("name") in (*self.checks,):
            arguments = value["arguments"]
            if isinstance(arguments, str):  # as OpenAI's own calls have them
                with contextlib.suppress(orjson.JSONDecodeError):
                    arguments = orjson.loads(arguments)
            yield value["name"], arguments
        if len(self.checks) == 1:
            yield next(iter(self.checks)), value

    def _fitting(self, name: str, source: str) -> Shaped:
        if self.kind == "json":
            return Shaped(content=source)
        return Shaped(call={"name": name, "arguments": source})


def _candidates(text: str) -> Iterator[str]:
    """Where the JSON may be: models put fences and words around it, whatever they are told."""
    yield text.strip()
    for block in _FENCED.findall(text):
        yield block.strip()
    # From the first bracket that opens to the last that closes. An expression would look at the rest of the
    # text again for each bracket that nothing closes.
    begins = [place for place in (text.find("{"), text.find("[")) if place >= 0]
    end = max(text.rfind("}"), text.rfind("]"))
    if begins and min(begins) < end:
        yield text[min(begins) : end + 1]


def _reason(fault: jsonschema_rs.ValidationError) -> str:
    where = ".".join(str(part) for part in fault.instance_path)
    return f"{where}: {fault.message}"[:500] if where else fault.message[:500]


async def reading(form: Form | None, function: Callable[_P, _T], /, *args: _P.args, **more: _P.kwargs) -> _T:
    """What ``function`` returns, which may make checks of ``form``: beside the event loop where that would
    take long."""
    if form is None or form.is_soon_made:
        return function(*args, **more)
    return await form.work.beside(function, *args, **more)


def form_of(body: ChatCompletionRequest, work: Work) -> Form | None:
    """None where any text will do. No check is made before it is used, and then of ``work``. Raises
    ``ValidationFailed``."""
    functions = body.demanded_functions
    return _form_of_a_call(body, functions, work) if functions is not None else _form_of_json(body, work)


def _refuse_if_long(instruction: str, where: str) -> None:
    """Before its schemas are looked at, which is work."""
    if len(instruction) > MAX_INSTRUCTION:
        raise too_long(where, f"at most {MAX_INSTRUCTION} characters of schemas, {len(instruction)} given")


def _form_of_json(body: ChatCompletionRequest, work: Work) -> Form | None:
    given = body.response_format
    asked = given if isinstance(given, dict) else {"type": given or "text"}
    if asked["type"] == "text":
        return None
    form = asked.get("json_schema") if asked["type"] == "json_schema" else None
    if not isinstance(form, dict) or form.get("schema") is None:
        checks = {"": Check({"type": "object"}, "response_format", work)}
        return Form("json", f"Answer the next message with one JSON object. {_ONLY}", checks, work)
    where = "response_format.json_schema.schema"
    words = form.get("description")
    about = f" ({words})" if isinstance(words, str) and words.strip() else ""
    instruction = (
        f"Answer the next message with JSON{about} that is valid against the JSON Schema below. {_ONLY}\n"
        f"{_json(form['schema'], where)}"
    )
    _refuse_if_long(instruction, "response_format")
    checks = {"": Check(form["schema"], where, work)}
    return Form("json", instruction, checks, work, strict=form.get("strict") is True)


def _form_of_a_call(body: ChatCompletionRequest, listed: Sequence[Any], work: Work) -> Form:
    functions = [_function(item, f"tools.{number}") for number, item in enumerate(listed)]
    if not functions:
        raise invalid("tool_choice", "demands a function that is not among `tools`")
    if len(functions) == 1:
        name, description, parameters, _ = functions[0]
        instruction = (
            f"To answer the next message the function `{name}` is called. {description}\n"
            f"Write its arguments as one JSON object that is valid against the JSON Schema below. {_ONLY}\n"
            f"{_json(parameters, 'tools')}"
        )
    else:
        instruction = (
            "To answer the next message one of the functions below is called. Choose one, and write "
            '{"name": its name, "arguments": an object that is valid against its JSON Schema} as one JSON '
            f"object. {_ONLY}\n"
        ) + "\n".join(
            f"- {each.name}: {each.description}\n{_json(each.parameters, 'tools')}" for each in functions
        )
    _refuse_if_long(instruction, "tools")
    checks = {function.name: Check(function.parameters, "tools", work) for function in functions}
    kind: FormKind = "function_call" if body.is_legacy_call else "tool_calls"
    return Form(kind, instruction, checks, work, all(function.strict for function in functions))


def _function(item: Any, where: str) -> Function:
    """Of ``tools`` or of the older ``functions``."""
    given = item.get("function", item) if isinstance(item, dict) else None
    name = given.get("name") if isinstance(given, dict) else None
    if not isinstance(given, dict) or not isinstance(name, str) or not name.strip():
        raise invalid(where, "must be a function with a name; other tools cannot be demanded")
    parameters = given.get("parameters")
    if parameters is None:
        parameters = {"type": "object", "properties": {}}
    if not isinstance(parameters, dict):
        raise invalid(f"{where}.parameters", "must be a JSON Schema")
    description = given.get("description")
    words = description.strip() if isinstance(description, str) else ""
    # Arguments are always an object, whatever the schema says or leaves out.
    return Function(name, words, {"type": "object"} | parameters, given.get("strict") is True)


def _json(value: Any, where: str = "") -> str:
    """Raises ``ValidationFailed`` for what JSON of ours cannot hold, which only a schema of the caller's can
    be; ``where``: the field that it stands in."""
    try:
        return orjson.dumps(value).decode()
    except orjson.JSONEncodeError:
        raise invalid(where, "holds an integer of more than 64 bits") from None


def _refuse(_uri: str) -> NoReturn:
    raise ValueError("references to other documents are not followed")
