"""JSON as strangers write it: bounded in depth, forgiving about what stands around it."""

import json
import re

_MAX_DEPTH = 40
_MAX_CHARS = 1_000_000
_TOKENS = re.compile(r'"(?:[^"\\]++|\\.)*+(?:"|\\?\Z)|[\[\]{}]', re.DOTALL)
_WRAPPING = re.compile(
    r"^(?:\s|<!--|-->|//\s*<!\[CDATA\[|/\*\s*<!\[CDATA\[\s*\*/|<!\[CDATA\[|\ufeff|//\s*$)+", re.MULTILINE
)
_SURROGATES = re.compile("[\ud800-\udfff]")
_STRING = r'"(?:[^"\\]++|\\.)*+(?:"|\\?\Z)'
_COMMENT = re.compile(rf"({_STRING})|/\*.*?(?:\*/|\Z)|//[^\n]*", re.DOTALL)
_COMMAS = re.compile(rf"({_STRING})|,[\s,]*+([\]}}])?", re.DOTALL)
_DECODER = json.JSONDecoder(strict=False, parse_constant=lambda _: None)


def read_json(text: str) -> object:
    """Read the first JSON value of a text, comments around it aside; None for what is no JSON, or nests too deeply."""
    text = _beginning(text[:_MAX_CHARS])
    try:
        return _strictly(text)
    except (ValueError, RecursionError):
        pass
    try:
        return _strictly(_plain(text))
    except (ValueError, RecursionError):
        return None


def _strictly(text: str) -> object:
    if _is_deep(text):
        return None
    return _without_surrogates(_DECODER.raw_decode(text)[0])


def _plain(text: str) -> str:
    """Take comments away, and commas that nothing follows; in time proportional to the text."""
    text = _COMMENT.sub(lambda found: found[1] or " ", text)
    return _COMMAS.sub(lambda found: found[1] or found[2] or ",", text).strip()


def _without_surrogates(value: object) -> object:
    """Leave out halves of surrogate pairs, which JSON can escape and no text may hold."""
    if isinstance(value, str):
        return _SURROGATES.sub("", value)
    if isinstance(value, list):
        return [_without_surrogates(one) for one in value]
    if isinstance(value, dict):
        return {str(_without_surrogates(name)): _without_surrogates(one) for name, one in value.items()}
    return value


def _beginning(text: str) -> str:
    wrapping = _WRAPPING.match(text)
    return text[wrapping.end() :] if wrapping else text


def _is_deep(text: str) -> bool:
    depth = 0
    for token in _TOKENS.finditer(text):
        if token[0] in "[{":
            depth += 1
        elif token[0] in "]}":
            depth -= 1
        if depth > _MAX_DEPTH:
            return True
    return False
