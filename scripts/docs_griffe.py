"""What the API pages need to know about our docstrings: an option's help is its text, roles are code."""

from __future__ import annotations

import ast
import re
from typing import Any

import griffe

ROLE = re.compile(r":[a-z]+:`~?([^`]+)`")


class Options(griffe.Extension):
    """Shows ``name: type = option(default=..., help=...)`` as an attribute with a default and a docstring."""

    def on_attribute_instance(self, *, attr: griffe.Attribute, **_: Any) -> None:
        call = attr.value
        if not isinstance(call, griffe.ExprCall) or str(call.function) != "option":
            return
        given = {item.name: item.value for item in call.arguments if isinstance(item, griffe.ExprKeyword)}
        text = ast.literal_eval(str(given["help"]))
        if "choices" in given:
            text += f" (one of {', '.join(ast.literal_eval(str(given['choices'])))})"
        attr.docstring = griffe.Docstring(text, parent=attr)
        attr.value = given["default"]

    def on_instance(self, *, obj: griffe.Object | griffe.Alias, **_: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = ROLE.sub(r"`\1`", obj.docstring.value)
