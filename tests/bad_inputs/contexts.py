"""Bad context templates."""

from bad_inputs.breaking import Table, changed, with_file


def text(content: str | bytes):
    """The edit with a contexts file of this content."""
    return with_file("contexts", content)


BAD: Table = {
    "missing": (changed(contexts="nowhere.json"), "contexts nowhere.json: no such file"),
    "not JSON": (text('["{}",'), "not valid JSON"),
    "empty": (text(""), "not valid JSON"),
    "not UTF-8": (text(b'["{}", "\xff"]'), "not UTF-8 text"),
    "an object": (text('{"a": 1}'), "a JSON list of templates was expected"),
    "an empty list": (text("[]"), "a JSON list of templates was expected"),
    "an empty group": (text('[["{}"], []]'), "template 1 must be text"),
    "a group beside a template": (text('["{}", ["A. {}"]]'), "template 2 must be text"),
    "a group in a group": (text('[["{}"], [["A. {}"]]]'), "template 2 must be text"),
    "a number": (text('["{}", 3]'), "template 2 must be text"),
    "null": (text('["{}", null]'), "template 2 must be text"),
    "no slot": (text('["{}", "A."]'), "template 2 must be text with exactly one {}"),
    "two slots": (text('["{}", "A. {} {}"]'), "template 2 must be text with exactly one {}"),
    "a numbered slot": (text('["{}", "A. {0}"]'), "template 2 must be text with exactly one {}"),
    "no bare prompt": (text('["A. {}"]'), "the first template must be the bare prompt"),
    "half a surrogate pair": (text('["{}", "\\ud800 {}"]'), "template 2 holds half a surrogate pair"),
    "too long for the model": (text('["{}", "' + "A " * 80 + '{}"]'), "the model has 64 positions"),
    "nested without end": (text("[" * 100_000), "nested too deeply"),
}
