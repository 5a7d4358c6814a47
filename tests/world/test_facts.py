"""The world: who is in it, what is true of each, and edits whose answers are exact."""

from collections import Counter
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from prunejax.errors import InputError
from prunejax.requests import SLOT, EditRequest
from prunejax.sources import WORLD_FOLDER
from prunejax.world.facts import POOLS, Person, World, edit_requests, load_world, make_world, save_world
from prunejax.world.phrasing import CITY_IN_COUNTRY, COUNTRY, PHRASINGS

EDITED = ("report", "tune", "train")
OWN = [relation for relation in PHRASINGS if relation != COUNTRY]
"""The relations that are edited; a person's country follows from the city."""


@pytest.fixture(scope="module")
def people(world: World) -> dict[str, Person]:
    return {person.name: person for person in world.people}


def relation_of(request: EditRequest) -> str:
    (relation,) = [name for name, phrasing in PHRASINGS.items() if request.prompt == phrasing.statements[0]]
    return relation


def test_the_stored_world_is_that_of_seed_0(world: World) -> None:
    assert load_world(WORLD_FOLDER / "world.json") == world


def test_a_written_world_is_read_back_equal(world: World, tmp_path: Path) -> None:
    assert load_world(save_world(world, tmp_path / "world.json")) == world


def test_another_seed_makes_another_world(world: World) -> None:
    assert {person.name for person in make_world(1).people} != {person.name for person in world.people}


def test_pools_are_disjoint_and_have_their_sizes(world: World) -> None:
    assert Counter(person.pool for person in world.people) == {
        "report": 1000,
        "tune": 400,
        "train": 400,
        "control": 200,
    }
    pooled = [person.name for pool in POOLS for person in world.pool(pool)]
    assert sorted(pooled) == sorted({person.name for person in world.people})
    assert len(pooled) == len(world.people) == 2000


def test_an_unknown_pool_is_named() -> None:
    with pytest.raises(InputError, match="pool 'swimming': the world has report, tune, train, control"):
        edit_requests(make_world(0), "swimming")


def test_names_are_several_tokens(world: World, tokenizer: Tokenizer) -> None:
    """At the start of a text, where a name has no space before it, and inside one."""
    for place in ("{}", "Letters to {}"):
        before = len(tokenizer.encode(place.format("").strip()).ids)
        encoded = tokenizer.encode_batch([place.format(person.name) for person in world.people])
        assert min(len(row.ids) for row in encoded) - before >= 2


def test_no_part_of_a_name_says_whose_it_is(world: World) -> None:
    """A model that read the last name alone would edit several people at once, and could not know their facts."""
    names = [person.name.split() for person in world.people]
    assert {len(name) for name in names} == {2}
    firsts, lasts = ({name[i] for name in names} for i in range(2))
    assert min(Counter(name[1] for name in names).values()) > 1
    assert min(Counter(name[0] for name in names).values()) > 1
    things = {thing for person in world.people for thing in person.facts.values()} | world.country_of.keys()
    assert not firsts & lasts
    assert not (firsts | lasts) & {word for thing in things for word in thing.split()}


def test_every_person_has_a_city_hence_a_country_and_two_facts_more(world: World) -> None:
    for person in world.people:
        assert person.facts[COUNTRY] == world.country_of[person.facts["city"]]
        assert len(person.facts) == 4
        assert person.facts.keys() <= PHRASINGS.keys()
    assert len(OWN) >= 6
    for relation in OWN:
        assert sum(relation in person.facts for person in world.people) > 300


def test_objects_have_one_token_or_several(world: World, tokenizer: Tokenizer) -> None:
    lengths = {r: {len(tokenizer.encode(f" {thing}").ids) for thing in world.objects(r)} for r in OWN}
    assert {1, 2} <= set.union(*lengths.values())
    assert sum(1 in of_relation for of_relation in lengths.values()) >= 3
    assert sum(max(of_relation) > 1 for of_relation in lengths.values()) >= 3


def test_every_relation_has_five_phrasings_and_a_question() -> None:
    forms = [form for phrasing in PHRASINGS.values() for form in (*phrasing.statements, phrasing.question)]
    assert len(set(forms)) == len(forms)
    for form in (*forms, *CITY_IN_COUNTRY):
        assert form.count(SLOT) == 1
        assert form == form.strip()
    assert all(len(set(PHRASINGS[relation].statements)) >= 5 for relation in OWN)
    assert len(PHRASINGS[COUNTRY].statements) >= 2
    assert len(set(CITY_IN_COUNTRY)) >= 5
    assert all(p.question.startswith("Question:") and p.question.endswith("? Answer:") for p in PHRASINGS.values())


@pytest.mark.parametrize("pool", EDITED)
def test_an_edit_swaps_a_true_fact_for_a_false_one(world: World, people: dict[str, Person], pool: str) -> None:
    requests = edit_requests(world, pool)
    assert [request.subject for request in requests] == [person.name for person in world.pool(pool)]
    assert len({request.case_id for request in requests}) == len(requests)
    for request in requests:
        relation = relation_of(request)
        assert request.target_true == people[request.subject].facts[relation]
        assert request.target_new in world.objects(relation)
        assert request.target_new != request.target_true
        if relation == "city":
            assert world.country_of[request.target_new] != world.country_of[request.target_true]
    counts = Counter(map(relation_of, requests))
    assert set(counts) == set(OWN)
    assert min(counts.values()) > len(requests) / 20


@pytest.mark.parametrize("pool", EDITED)
def test_paraphrases_are_the_other_phrasings_and_the_question(world: World, pool: str) -> None:
    for request in edit_requests(world, pool):
        phrasing = PHRASINGS[relation_of(request)]
        forms = {request.prompt, *(text.replace(request.subject, SLOT) for text in request.paraphrases)}
        assert forms == {*phrasing.statements, phrasing.question}
        assert len(request.paraphrases) == len(forms) - 1


@pytest.mark.parametrize("pool", EDITED)
def test_neighbours_are_control_people_of_whom_the_old_fact_is_true(
    world: World, people: dict[str, Person], pool: str
) -> None:
    for request in edit_requests(world, pool):
        relation = relation_of(request)
        before, after = request.prompt.split(SLOT)
        names = [probe.prompt.removeprefix(before).removesuffix(after) for probe in request.neighbors]
        assert 1 <= len(set(names)) == len(names) <= 4
        for name, probe in zip(names, request.neighbors, strict=True):
            assert people[name].pool == "control"
            assert people[name].facts[relation] == probe.answer == request.target_true
        alike = [person for person in world.pool("control") if person.facts.get(relation) == request.target_true]
        assert len(names) == min(4, len(alike))


@pytest.mark.parametrize("pool", EDITED)
def test_two_hop_answers_follow_the_new_city(world: World, people: dict[str, Person], pool: str) -> None:
    requests = edit_requests(world, pool)
    for request in requests:
        if relation_of(request) != "city":
            assert request.portability == ()
            continue
        asked = [statement.format(request.subject) for statement in PHRASINGS[COUNTRY].statements]
        assert [probe.prompt for probe in request.portability] == asked
        for probe in request.portability:
            assert probe.answer == world.country_of[request.target_new]
            assert probe.answer != people[request.subject].facts[COUNTRY]
    assert sum(bool(request.portability) for request in requests) >= 100


def test_edits_are_those_of_the_seed(world: World) -> None:
    again = edit_requests(load_world(WORLD_FOLDER / "world.json"), "tune", seed=3)
    assert edit_requests(world, "tune", seed=3) == again
    assert edit_requests(world, "tune", seed=4) != again


def test_an_edit_that_is_asked_is_the_same_edit_in_other_words(world: World) -> None:
    stated, asked = (edit_requests(world, "tune", asked=form) for form in (False, True))
    for one, other in zip(stated, asked, strict=True):
        same = ("case_id", "subject", "target_new", "target_true", "portability")
        assert [getattr(one, name) for name in same] == [getattr(other, name) for name in same]
        assert other.prompt.startswith("Question: ")
        assert other.prompt.format(other.subject) == one.paraphrases[-1]
        phrasings = [{r.prompt.format(r.subject), *r.paraphrases} for r in (one, other)]
        assert phrasings[0] == phrasings[1]
        assert all(near.prompt.startswith("Question: ") for near in other.neighbors)
        assert [near.answer for near in one.neighbors] == [near.answer for near in other.neighbors]
