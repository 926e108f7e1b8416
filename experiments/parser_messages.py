"""Turns the parsers' reports into one sentence: which setting, what was given, what is allowed."""

import re
from difflib import get_close_matches
from pkgutil import resolve_name

from experiments.setting_values import IN_WORDS, parameters_of

# Lines that tell how the parser searched, not what is wrong.
_NOISE = re.compile(
    r"^(Does not validate against|Subtypes:|Errors:|Given value type:|Expected a <class 'NoneType'>$|"
    r"Expected a path but|Problem with given class_path|Parser key|$)"
)
_SHOWN = 200  # characters of a value
_TYPES = {getattr(kind, "__name__", ""): words for kind, words in IN_WORDS.items()}


def readable(message: str) -> str:
    """One sentence instead of a tree of attempts; anything unknown is left as it is."""
    keys = list(dict.fromkeys(re.findall(r'Parser key "([^"]+)"', message)))
    if not keys:
        return _without_keys(message.strip())
    name = ".".join(keys)
    lines = [line.strip().removeprefix("- ").strip() for line in message.splitlines()]
    deepest = max(place for place, line in enumerate(lines) if line.startswith("Parser key"))
    class_path = next(iter(re.findall(r"class_path '([^']+)'", message)[-1:]), None)
    for line in lines[deepest:]:
        if unknown := re.match(r"Option '([^']+)' is not accepted", line):
            taken = parameters_of(resolve_name(class_path)) if class_path else {}
            known = [option for option in taken if option != unknown[1]]  # one of the base's may be given to it already
            hint = _like(unknown[1], known) or "."
            return f"{name} has no option {unknown[1]!r}; {class_path} allows: {', '.join(known)}{hint}"
    reasons = list(dict.fromkeys(line for line in lines[deepest:] if not _NOISE.match(line)))
    given = next((line.partition(":")[2].strip() for line in reasons if line.startswith("Given value:")), None)
    reasons = [_plain(line) for line in reasons if not line.startswith("Given value")]
    whole = ("NestedArg", "Namespace", "{'class_path'")  # all settings of the class, not the one at fault
    value = f" is {given[:_SHOWN]!r}" if given is not None and not given.startswith(whole) else ""
    value += f"… ({len(given):,} characters)" if value and given is not None and len(given) > _SHOWN else ""
    told = "; ".join(reasons) or "not allowed"
    told += " or null" if told.startswith("allowed: '") and "Expected a <class 'NoneType'>" in message else ""
    return f"{name}{value}: {told}{'' if told.endswith('?') else '.'} Correct it; `python cli.py fit --help` lists all."


def unknown_word(message: str) -> str | None:
    """The first word that the parser takes for no option, if that is what it reports."""
    found = re.search(r"unrecognized arguments: (\S+)", message, re.IGNORECASE)
    group = re.match(r'Parser key "([^"]+)"', message)
    if misplaced := re.match(r"(model|data|trainer) has no option '(\w+)'[^?]*$", readable(message)):
        return f"--{misplaced[1]}.{misplaced[2]}"  # nothing in this group has a similar name, but a part of it may
    return None if found is None else found[1] if group is None else f"--{group[1]}.{found[1].lstrip('-')}"


def missing_package(message: str) -> str | None:
    """The package that a library says must be installed first."""
    found = re.search(r"pip install (?:-U )?'?([A-Za-z][\w-]*)|No module named '(\w+)|requires '([\w-]+)", message)
    return None if found is None else next(name for name in found.groups() if name)


def _without_keys(message: str) -> str:
    if message.startswith("the following arguments are required"):
        return f"{message}. Give a config that has them, such as `--config quickstart.yaml`."
    if message.endswith("expected one argument"):
        return f"{message}. A value that begins with a dash is given as --NAME=VALUE."
    return message


def innermost(message: str) -> str:
    """What the class itself said, out of the parser's report of how it tried to make it."""
    lines = [line.strip().removeprefix("- ").strip() for line in message.splitlines()]
    said = [line for line in lines if not _NOISE.match(line) and not line.startswith("Given value")]
    return said[-1] if said else lines[-1]


def _plain(reason: str) -> str:
    if reason.startswith("argument of type"):  # jsonargparse looks for a dot in it
        return "a class_path that isn't text; allowed: a class such as lora.LoRAXS"
    if absent := re.fullmatch(r"module '(\w[\w.]*)' has no attribute '(\w+)'", reason):
        classes = [name for name, found in vars(resolve_name(absent[1])).items() if isinstance(found, type)]
        return f"{absent[1]} has no class {absent[2]}{_like(absent[2], classes)}"
    reason = re.sub(r"Expected a <class '(\w+)'>", lambda m: f"expected {_TYPES.get(m[1], m[1])}", reason)
    reason = re.sub(r"Expected a typing\.Literal\[([^\]]+)\]\. Got value: (.+)", r"\2 given, allowed: \1", reason)
    return re.sub(r"Expected a typing\.Literal\[([^\]]+)\]", r"allowed: \1", reason)


def _like(name: str, known: list[str]) -> str:
    """A question that offers the names nearest to this one, upper or lower case alike."""
    as_written = {one.lower(): one for one in known}
    near = [as_written[one] for one in get_close_matches(name.lower(), as_written, n=3, cutoff=0.5)]
    return f". Did you mean {' or '.join(near)}?" if near else ""
