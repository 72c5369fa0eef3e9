"""Known templates: whether the parameters fit, and the text they make.

A variable is `${TYPE_n}`, with at most n characters, or `${TYPE}`; the mainland ones carry a type
alone. NUM takes digits only (facts, Templates and length).
"""

import re
from collections.abc import Mapping, Sequence

_VARIABLE = re.compile(r"\$\{([A-Za-z]*)_?([0-9]*)\}")


def render(templates: Mapping[str, str], template_id: str, params: Sequence[str]) -> str | None:
    """Return the text that is sent, or None if the template is unknown or the parameters misfit."""
    template = templates.get(template_id)
    if template is None:
        return None
    variables = _VARIABLE.findall(template)
    if len(variables) != len(params):
        return None
    for (kind, limit), param in zip(variables, params, strict=True):
        if not param or (limit and len(param) > int(limit)):
            return None
        if kind == "NUM" and not (param.isascii() and param.isdigit()):
            return None
    rest = iter(params)
    return _VARIABLE.sub(lambda _: next(rest), template)
