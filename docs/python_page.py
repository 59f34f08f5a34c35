"""The page python.md: signature, description and an example of every public name, from the code itself."""

import ast
import dataclasses
import inspect
import itertools
import re
import textwrap
import types
import typing
from collections.abc import Iterator
from typing import Any

from examples import EXAMPLES

HEAD = """# Python

Made by `make docs` from the signatures, docstrings and settings in the code, and from `docs/examples.py`. Everything
on this page is imported from `paintproc`, if nothing else is said. [research.md](research.md) shows how the parts work
together. In a signature `...` is a default that cannot be written in one line; for `progress` it is a function that
does nothing.

"""
WIDTH = 100
"""A signature longer than this has one parameter a line."""
COLUMNS = re.compile(r"\S {2,}\S")
"""What lines of a docstring have that are aligned in columns."""


def python() -> str:
    """The whole page. KeyError where a public name has no example."""
    import paintproc

    names = sorted((name for name in paintproc.__all__ if not name.startswith("__")), key=str.lower)
    things = {name: getattr(paintproc, name) for name in names}
    rows = [[f"[{name}](#{name.lower()})", summary(thing)] for name, thing in things.items()]
    others = {kind.__name__: kind for thing in things.values() for kind in own_types(thing)}
    sections = [section(name, thing, EXAMPLES[name].strip()) for name, thing in things.items()]
    sections += [section(name, others[name]) for name in sorted(others, key=str.lower) if name not in things]
    return HEAD + table(["name", "what it is"], rows) + "".join(sections)


def section(name: str, thing: Any, example: str = "") -> str:
    """One name: heading, signature, prose, fields and methods of a class, example; only public names have one."""
    fields = descriptions(thing)
    parts = [f"\n## {name}"]
    if not example:
        parts.append(f"A type that the names above take or return, from `{thing.__module__}`.")
    parts += [fenced(definition(name, thing), "py"), prose(thing, fields)]
    if dataclasses.is_dataclass(thing):
        parts.append(field_table(thing, fields).rstrip())
    if inspect.isclass(thing):
        parts.append(method_list(thing))
        parts.append(kinds(thing))
    if example:
        parts.append(fenced(example, "python"))
    return "\n\n".join(part for part in parts if part) + "\n"


def definition(name: str, thing: Any) -> str:
    """`name(parameter: type = default, ...) -> type`; of a dataclass only how it is called: its fields are a table."""
    if dataclasses.is_dataclass(thing):
        fields = dataclasses.fields(thing)
        names = [field.name for field in fields if not has_default(field)]
        more = ["..."] if len(names) < len(fields) else []
        return f"class {name}({', '.join([*(['*'] if fields[0].kw_only else []), *names, *more])})"
    return ("class " if inspect.isclass(thing) else "") + signature(name, thing)


def signature(name: str, function: Any, method: bool = False) -> str:
    """The signature with types and defaults, one parameter a line where it is long."""
    found = inspect.signature(function)
    home = inspect.getmodule(function)
    parameters, kinds_seen = [], set()
    for parameter in list(found.parameters.values())[int(method) :]:
        if parameter.kind is parameter.KEYWORD_ONLY and parameter.kind not in kinds_seen:
            parameters.append("*")
        kinds_seen.add(parameter.kind)
        text = parameter.name
        if parameter.annotation is not parameter.empty:
            text += f": {type_text(parameter.annotation)}"
        if parameter.default is not parameter.empty:
            text += f" = {default_text(parameter.default, home)}"
        parameters.append(text)
    result = found.return_annotation
    end = "" if result is found.empty or inspect.isclass(function) else f" -> {type_text(result)}"
    line = f"{name}({', '.join(parameters)}){end}"
    if len(line) <= WIDTH:
        return line
    return f"{name}(\n" + "".join(f"    {parameter},\n" for parameter in parameters) + f"){end}"


def type_text(kind: Any) -> str:
    """A type as people write it: `str | Path | np.ndarray`, whatever the version of Python."""
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if kind is None or kind is type(None):
        return "None"
    if kind is Ellipsis:
        return "..."
    if isinstance(kind, str):
        return kind
    if origin is typing.Annotated:
        return type_text(inner[0])
    if origin is typing.Literal:
        return " | ".join(f'"{value}"' if isinstance(value, str) else repr(value) for value in inner)
    if origin in (typing.Union, types.UnionType):
        return " | ".join(map(type_text, inner))
    if isinstance(kind, list):
        return f"[{', '.join(map(type_text, kind))}]"
    if origin is not None:
        return f"{type_text(origin)}[{', '.join(map(type_text, inner))}]"
    name = getattr(kind, "__name__", str(kind))
    return f"np.{name}" if getattr(kind, "__module__", "") == "numpy" else name


def default_text(value: Any, home: Any = None) -> str:
    """A default as it is written; a module's constant by its name where it is not plain, a function as `...`."""
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, tuple) and all(isinstance(item, str | int | float) for item in value):
        return f"({', '.join(map(default_text, value))}{',' if len(value) == 1 else ''})"
    if value is None or isinstance(value, int | float):
        return repr(value)
    named = [name for name, other in vars(home).items() if other is value and name.isupper()] if home else []
    if not named and isinstance(value, tuple):
        return f"({', '.join(default_text(item, home) for item in value)}{',' if len(value) == 1 else ''})"
    return named[0] if named else "..."


def has_default(field: Any) -> bool:
    return field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING


def field_table(thing: Any, meanings: dict[str, str]) -> str:
    """Type, default and meaning of every field of a dataclass."""
    hints = typing.get_type_hints(thing)
    home, rows = inspect.getmodule(thing), []
    for field in dataclasses.fields(thing):
        if not has_default(field):
            default = "required"
        elif field.default is not dataclasses.MISSING:
            default = f"`{default_text(field.default, home)}`"
        else:
            default = f"`{factory_text(field)}`"
        rows.append([f"`{field.name}`", f"`{type_text(hints[field.name])}`", default, meanings.get(field.name, "")])
    if not any(row[-1] for row in rows):
        return table(["field", "type", "default"], [row[:-1] for row in rows])
    return table(["field", "type", "default", "meaning"], rows)


def factory_text(field: Any) -> str:
    """What a default factory makes, in short."""
    value = field.default_factory()
    if hasattr(value, "tolist"):
        return "an empty array" if value.size == 0 else str(value.tolist())
    return default_text(value) if isinstance(value, tuple | str | int | float) else repr(value)


def descriptions(thing: Any) -> dict[str, str]:
    """The meaning of each field of a dataclass: its help text as a setting, else its entry in the docstring."""
    if not dataclasses.is_dataclass(thing):
        return {}
    from paintproc.config.settings import field_types

    names = [field.name for field in dataclasses.fields(thing)]
    hints = typing.get_type_hints(thing, include_extras=True)
    if all(typing.get_origin(hints[name]) is typing.Annotated for name in names):
        return {name: setting.help for name, setting in field_types(thing).items()}
    return texts_below(thing) | entries(inspect.getdoc(thing) or "", names)


def texts_below(thing: type) -> dict[str, str]:
    """The strings that stand below the fields of a class in its source."""
    body = ast.parse(textwrap.dedent(inspect.getsource(thing))).body[0].body  # type: ignore[attr-defined]
    return {
        field.target.id: " ".join(text.value.value.split())
        for field, text in itertools.pairwise(body)
        if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant)
    }


def own_types(thing: Any) -> set[type]:
    """paintproc's own dataclasses in the types of a function's parameters and result."""

    def inside(kind: Any) -> Iterator[type]:
        if inspect.isclass(kind) and kind.__module__.startswith("paintproc.") and dataclasses.is_dataclass(kind):
            yield kind
        for part in typing.get_args(kind):
            yield from inside(part)

    return {found for kind in typing.get_type_hints(thing).values() for found in inside(kind)}


def entries(docstring: str, names: list[str]) -> dict[str, str]:
    """`name   what it is` in a docstring: an entry goes on in indented lines."""
    found: dict[str, str] = {}
    current = ""
    for line in docstring.splitlines():
        first = line.split(" ")[0]
        if first in names and re.match(r"\w+ {2,}\S", line):
            current = first
            found[current] = re.sub(r" {2,}", ": ", line[len(first) :].strip())
        elif current and line.startswith("  "):
            found[current] += " " + line.strip()
        else:
            current = ""
    return found


def prose(thing: Any, fields: dict[str, str]) -> str:
    """The docstring as Markdown, without the entries that the table of fields has."""
    paragraphs = []
    for paragraph in (inspect.getdoc(thing) or "").split("\n\n"):
        lines = paragraph.splitlines()
        if lines and lines[0].split(" ")[0] in fields and COLUMNS.search(lines[0]):
            continue
        paragraphs.append(fenced(paragraph, "text") if COLUMNS.search(paragraph) else paragraph)
    return "\n\n".join(paragraphs)


def method_list(thing: type) -> str:
    """The public methods that the class itself defines, and the ways in which Python's own syntax uses it."""
    lines = []
    for name, method in vars(thing).items():
        if not inspect.isfunction(method) or name.startswith("_"):
            continue
        text = " ".join((inspect.getdoc(method) or "").split())
        lines.append(f"- `{signature('.' + name, method, method=True)}`" + (f": {text}" if text else ""))
    syntax = {"__len__": "`len(x)`", "__getitem__": "`x[index]`", "__iter__": "`for item in x`"}
    used = [how for name, how in syntax.items() if name in vars(thing)]
    if used:
        lines.append(f"- {', '.join(used)} work{'s' if len(used) == 1 else ''} on it.")
    return "\n".join(lines)


def kinds(thing: type) -> str:
    """The kinds of an error with their exit codes."""
    if not issubclass(thing, BaseException):
        return ""
    import paintproc.errors as home

    rows = []
    for kind in thing.__subclasses__():
        if kind.__module__ == home.__name__:
            meaning = re.search(rf"{kind.__name__} +\d+ +(.*)", home.__doc__ or "")
            rows.append([f"`{kind.__name__}`", kind.exit_code, meaning[1] if meaning else ""])  # type: ignore[attr-defined]
    return f"Its kinds are in `{home.__name__}`:\n\n{table(['kind', 'exit code', 'meaning'], rows).rstrip()}"


def summary(thing: Any) -> str:
    """The first sentence of the docstring."""
    return re.split(r"(?<=\.) |\n\n", inspect.getdoc(thing) or "")[0].replace("\n", " ")


def fenced(text: str, language: str) -> str:
    return f"```{language}\n{text}\n```"


def table(head: list[str], rows: list[list[Any]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines) + "\n"
