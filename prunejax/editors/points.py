"""The five points at which an edit can be restrained, and which editors have them.

    A  value step      clamp, early stop (stop_loss, patience), norm anchor: settings of editors that search a value
    B  solve           ridge, moment_weight, key_ridge, null space, remembered keys: settings of editors that solve
    C  each update     --restrain rect:20, mask:20 (`masking`)
    D  accumulated     --restrain log:1.2@50, and at the end of any run (`restraint`)
    E  weight          cap:1.5, spectral, frobenius, at the end or every so many edits (`capping`)

C, D and E act on what an editor returns, so any editor that writes weights has them; one that answers from memory has
nothing to restrain. A and B are part of how an editor finds its update.
"""

from dataclasses import fields

VALUE = ("clamp", "stop_loss", "patience", "anchor", "kl_factor", "weight_decay")
SOLVE = ("second_moment", "ridge", "moment_weight", "key_ridge", "cut", "threshold", "slack", "keep")


def refused(settings: type, name: str) -> str:
    """Why an editor with these settings has no setting `name` of another editor; "" if it has it, or nobody has."""
    known = {field.name for field in fields(settings)}
    if name in known:
        return ""
    if name in VALUE and "clamp" not in known:
        return "it searches no target value, so nothing can be restrained there"
    if name in SOLVE and not known & {"second_moment", "key_ridge"}:
        return "it solves for no keys, so there is no metric to change"
    if name in SOLVE:
        return "its solve has another metric"
    return ""
