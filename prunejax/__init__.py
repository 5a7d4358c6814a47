"""Edit facts into a language model one after another, watch the weights' spectrum, restrain it, measure what is left.

Nothing is imported here. Follow the data through the modules: `requests` -> `editors` -> `update` -> `restraint` ->
`evaluate` -> `records` -> `figures`; `spectra` and `theory` look on, `sequence` makes edits a run, `cli` has the verbs.
"""

from importlib.metadata import version

__version__ = version("prunejax")
