"""The value step as ROME and MEMIT publish it: a delta at the subject's last token, found by Adam, every evaluation a
pass of all whole prompts through the whole model with logits at all positions."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.original_model import Original, Rows, hidden, hooked, rows_of
from benchmarks.recipe import Recipe
from prunejax.requests import EditRequest

KL_PROMPT = "{} is a"
IGNORED = -100
"""The label of a position that predicts nothing."""


class Found(NamedTuple):
    """The delta [d_model] and the value [d_model] that it joins, what stood at the subject's last token of the bare
    prompt; losses, one an evaluation: total, NLL, KL term, weight decay."""

    delta: Tensor
    initial: Tensor
    losses: list[list[float]]


class Fact(NamedTuple):
    """One request's batch: a row a context with the target but its last token, then the row of the KL term; the labels
    [R, T] of the first R, IGNORED elsewhere."""

    rows: Rows
    labels: Tensor


def fact_of(original: Original, request: EditRequest, templates: Sequence[str]) -> Fact:
    """The batch of one request."""
    tokenizer = original.tokenizer
    target = tokenizer(" " + request.target_new)["input_ids"]
    prompts = [template.replace("{}", request.prompt, 1) for template in templates]
    n = len(prompts)
    endings = [tokenizer.decode(target[:-1])] * n + [""]
    rows = rows_of(original, [*prompts, KL_PROMPT], [request.subject] * (n + 1), endings)
    labels = torch.full_like(rows.inputs["input_ids"][:n], IGNORED)
    for row, length in enumerate(rows.inputs["attention_mask"][:n].sum(1).tolist()):
        labels[row, length - len(target) : length] = torch.tensor(target)
    return Fact(rows, labels)


def find_value(original: Original, fact: Fact, recipe: Recipe, site: str) -> Found:
    """delta = argmin of mean NLL + kl_factor KL(edited || unedited) + weight_decay ||delta|| / ||v0||^2, scaled back to
    ||delta|| <= clamp ||v0|| after every update.

    It joins the MLP's output at the last of `layers` (site "value", ROME), where the loss reads the model's own logits;
    or the residual stream behind that layer (site "residual", MEMIT), where the loss applies the last normalisation and
    the output matrix once more to what the last layer returns.
    """
    layer = original.layers[recipe.layers[-1]]
    place = layer.mlp if site == "value" else layer
    row, columns = torch.arange(len(fact.rows.subject_last)), fact.rows.subject_last
    n, seen = len(fact.labels), {}
    width = original.model.config.hidden_size
    delta = torch.zeros(width, device=original.model.device, requires_grad=True)

    def join(_, __, output):
        stream = hidden(output)
        seen.setdefault("initial", stream[0, columns[0]].detach().clone())
        stream = stream.clone()
        stream[row, columns] += delta.to(stream.dtype)
        return (stream, *output[1:]) if isinstance(output, tuple) else stream

    def keep(_, __, output):
        seen["last"] = hidden(output)

    adam, losses = torch.optim.Adam([delta], lr=recipe.lr), []
    with hooked(place, join), hooked(original.layers[-1], keep):
        for step in range(recipe.steps):
            adam.zero_grad()
            logits = original.model(**fact.rows.inputs).logits
            kl_log_p = functional.log_softmax(logits[n, columns[n]].float(), dim=-1)
            unedited = seen.setdefault("unedited", kl_log_p.detach().clone())
            if site == "residual":
                logits = original.model.lm_head(original.norm(seen["last"][:n]))
            log_p = torch.log_softmax(logits.float(), dim=2)[:n]
            wanted = fact.labels != IGNORED
            taken = torch.gather(log_p, 2, torch.where(wanted, fact.labels, 0).unsqueeze(2)).squeeze(2)
            nll = -((taken * wanted).sum(1) / wanted.sum(1)).mean()
            kl = recipe.kl_factor * functional.kl_div(unedited, kl_log_p, log_target=True, reduction="sum")
            initial = seen["initial"].float()
            decay = recipe.weight_decay * torch.norm(delta) / torch.norm(initial) ** 2
            loss = nll + kl + decay
            losses.append([part.item() for part in (loss, nll, kl, decay)])
            if loss < recipe.stop_loss or step == recipe.steps - 1:
                break
            loss.backward()
            adam.step()
            longest = recipe.clamp * initial.norm()
            if delta.norm() > longest:
                with torch.no_grad():
                    delta *= longest / delta.norm()
    return Found(delta.detach(), initial, losses)
