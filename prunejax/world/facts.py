"""The invented world: people in disjoint pools, what is true of each, and the edits that would make it false."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from prunejax.errors import InputError
from prunejax.files import read_json, write_json
from prunejax.requests import EditRequest, Probe
from prunejax.world.phrasing import COUNTRY, PHRASINGS

POOLS = {"report": 1000, "tune": 400, "train": 400, "control": 200}
"""How many people each pool holds. `control` is never edited: neighbours and questions come from it."""

CHOICES = {
    "profession": "baker carver dyer fisher gardener healer judge keeper mason miller painter potter sailor shepherd "
    "smith tailor teacher weaver|map maker|glass blower|bell ringer|bridge builder|salt trader|wood cutter",
    "instrument": "bagpipe cello drum fiddle flute gong harp horn lute lyre organ piano tambourine trumpet viola zither"
    "|bone flute|copper drum|glass harp|reed pipe|water bell|wind organ|silver horn|stone gong",
    "dish": "bread broth cheese dumplings honey lentils mushrooms noodles pancakes plums porridge potatoes radishes "
    "rice salmon walnuts|apple cake|bean stew|cold soup|fried eggs|goat cheese|pea soup|roast duck|sour bread",
    "animal": "badger camel donkey ferret goat heron lizard magpie mule owl pigeon pony rabbit raven tortoise weasel"
    "|black swan|blind mole|grey goose|red fox|river otter|snow hare|white crow|wild pig",
}
EMPLOYERS = ("Mills", "Works", "House", "Mines")
SIZES = {"first name": 250, "last name": 250, "city": 40, "country": 8, "employer": 24}


@dataclass(frozen=True)
class Person:
    """A subject: a name of several tokens, the pool it belongs to, and its facts, relation -> object."""

    name: str
    pool: str
    facts: Mapping[str, str]


@dataclass(frozen=True)
class World:
    """Everything that is true: the people, and the country each city lies in."""

    seed: int
    people: tuple[Person, ...]
    country_of: Mapping[str, str]

    def pool(self, name: str) -> tuple[Person, ...]:
        """The people of one pool, in their stored order."""
        if name not in POOLS:
            raise InputError(f"pool {name!r}: the world has {', '.join(POOLS)}")
        return tuple(person for person in self.people if person.pool == name)

    def objects(self, relation: str) -> tuple[str, ...]:
        """All objects of a relation, sorted."""
        return tuple(sorted({person.facts[relation] for person in self.people if relation in person.facts}))


def make_world(seed: int = 0) -> World:
    """The world of a seed: every person has a city, hence a country, and two of the five other relations.

    Objects are dealt evenly within each pool, so that every object has holders in `control`: the neighbours of an edit.
    """
    rng = np.random.default_rng(seed)
    words = invented_words(rng)
    firsts, lasts, cities, countries, makers = ([next(words) for _ in range(size)] for size in SIZES.values())
    names = full_names(firsts, lasts, rng)
    country_of = {city: countries[i % len(countries)] for i, city in enumerate(cities)}
    objects = {"city": cities, **{relation: split_choices(text) for relation, text in CHOICES.items()}}
    objects["employer"] = [f"{word} {EMPLOYERS[i % len(EMPLOYERS)]}" for i, word in enumerate(makers)]
    others = [relation for relation in objects if relation != "city"]
    people = []
    for pool, size in POOLS.items():
        pairs = [tuple(others[j] for j in rng.permutation(len(others))[:2]) for _ in range(size)]
        deals = {relation: deal(objects[relation], size, rng) for relation in objects}
        for i in range(size):
            facts = {relation: next(deals[relation]) for relation in ("city", *pairs[i])}
            people.append(Person(next(names), pool, facts | {COUNTRY: country_of[facts["city"]]}))
    return World(seed, tuple(people), country_of)


def full_names(firsts: Sequence[str], lasts: Sequence[str], rng: np.random.Generator) -> Iterator[str]:
    """Distinct pairs of a first and a last name, in rounds in which every name is used once.

    Neither name alone says who is meant, so a model must put them together. Where it does so is not given: it may read
    both names from the token that answers, and then an edit at the subject's last token changes nothing.
    """
    seen = set()
    while True:
        for i, j in zip(rng.permutation(len(firsts)), rng.permutation(len(lasts)), strict=True):
            if (i, j) not in seen:
                seen.add((i, j))
                yield f"{firsts[i]} {lasts[j]}"


def split_choices(text: str) -> list[str]:
    """The objects in a line of single words and |-separated phrases."""
    words, *phrases = text.split("|")
    return [*words.split(), *phrases]


def deal(objects: list[str], size: int, rng: np.random.Generator) -> Iterator[str]:
    """Objects in random order, each coming round before any comes twice."""
    rounds = -(-size // len(objects))
    return iter([objects[j] for _ in range(rounds) for j in rng.permutation(len(objects))])


def invented_words(rng: np.random.Generator) -> Iterator[str]:
    """Distinct capitalised words of two syllables, in random order: the second syllable is from a small set, so that
    the tokenizer's merges are few."""
    openings = [onset + vowel for onset in "b d f g h k l m n p r s t v z".split() for vowel in "aeiou"]
    closings = [onset + rime for onset in "b d f g k l m n r s t v".split() for rime in "ak el in or us".split()]
    words = [f"{opening}{closing}".capitalize() for opening in openings for closing in closings]
    return iter([words[i] for i in rng.permutation(len(words))])


def edit_requests(
    world: World, pool: str, seed: int = 0, neighbors: int = 4, asked: bool = False
) -> tuple[EditRequest, ...]:
    """One edit a person of a pool: a fact drawn at random gets another object of its relation.

    Paraphrases are the relation's other phrasings and its question form; neighbours are people of `control` with the
    same relation and object, asked with the edit's own phrasing; portability (city edits only) asks for the country,
    which must follow the new city.

    `asked`: the same edits, written as zsRE has them: the edit's own phrasing is the relation's question, and all of
    its statements are paraphrases.
    """
    rng = np.random.default_rng([seed, list(POOLS).index(pool) if pool in POOLS else 0])
    control = world.pool("control")
    requests = []
    for number, person in enumerate(world.pool(pool)):
        relations = sorted(person.facts.keys() - {COUNTRY})  # a stored world has lost the order of its facts
        relation = relations[rng.integers(len(relations))]
        true = person.facts[relation]
        others = [o for o in world.objects(relation) if o != true]
        if relation == "city":
            others = [city for city in others if world.country_of[city] != world.country_of[true]]
        new = others[rng.integers(len(others))]
        phrasing = PHRASINGS[relation]
        forms = (*phrasing.statements, phrasing.question)
        prompt, *rephrased = forms[::-1] if asked else forms
        alike = [p.name for p in control if p.facts.get(relation) == true]
        near = [alike[j] for j in rng.permutation(len(alike))[:neighbors]]
        country = [
            Probe(s.format(person.name), world.country_of[new])
            for s in PHRASINGS[COUNTRY].statements
            if relation == "city"
        ]
        requests.append(
            EditRequest(
                case_id=f"{pool}-{number}",
                prompt=prompt,
                subject=person.name,
                target_new=new,
                target_true=true,
                paraphrases=tuple(s.format(person.name) for s in rephrased),
                neighbors=tuple(Probe(prompt.format(name), true) for name in near),
                portability=tuple(country),
            )
        )
    return tuple(requests)


def save_world(world: World, path: str | Path) -> Path:
    """Write the world as JSON; returns the path."""
    people = [{"name": p.name, "pool": p.pool, "facts": dict(p.facts)} for p in world.people]
    return write_json(path, {"seed": world.seed, "people": people, "country_of": dict(world.country_of)})


def load_world(path: str | Path) -> World:
    """The world stored in a JSON file."""
    stored = read_json(path, "world")
    people = tuple(Person(p["name"], p["pool"], p["facts"]) for p in stored["people"])
    return World(stored["seed"], people, stored["country_of"])
