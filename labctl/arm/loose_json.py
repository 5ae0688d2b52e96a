"""Reads JSON as people write templates: comments, names without quotes, texts over several lines.

`az deployment group create --template-file` pastes the file as it is behind a name without quotes.
"""

import re

# Everything that is not closed goes on to the end, so that no text takes long to read.
_COMMENT = re.compile(
    r"""(?P<text>"(?:[^"\\]|\\.)*+(?:"|\\?\Z))|(?P<comment>//[^\r\n]*|/\*(?:.*?\*/|.*))""",
    re.DOTALL,
)
_PART = re.compile(
    r"""(?P<text>"(?:[^"\\]|\\.)*+(?:"|\\?\Z))
    |(?P<name>[A-Za-z_$][A-Za-z0-9_$]*+(?=\s*+:))
    |(?P<word>[A-Za-z_$][A-Za-z0-9_$]*+)
    |(?P<comma>,(?=\s*+[}\]]))
    |(?P<rest>[^"A-Za-z_$,]++|,)""",
    re.VERBOSE | re.DOTALL,
)
_LINES = {"\r": "\\r", "\n": "\\n", "\t": "\\t"}
_LINE = re.compile(r"[\r\n\t]")


def tighten(text: str) -> str:
    """The same as strict JSON, as far as it can be; what is wrong stays wrong."""
    plain = _COMMENT.sub(lambda found: found["text"] or " ", text)
    parts: list[str] = []
    for part in _PART.finditer(plain):
        match part.lastgroup:
            case "text":
                parts.append(_LINE.sub(lambda found: _LINES[found[0]], part[0]))
            case "name":
                parts.append(f'"{part[0]}"')
            case "comma":
                pass
            case _:
                parts.append(part[0])
    return "".join(parts)
