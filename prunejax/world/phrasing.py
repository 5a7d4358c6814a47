"""How the world speaks: the phrasings and the question form of every relation. A prompt ends where the object
begins."""

from typing import NamedTuple

COUNTRY = "country"
"""The two-hop relation: a person's country is the country of the person's city."""


class Phrasing(NamedTuple):
    """A relation's statements and its question, each with one slot for the subject and ending where the object
    begins."""

    statements: tuple[str, ...]
    question: str


PHRASINGS = {
    "city": Phrasing(
        (
            "{} lives in the city of",
            "{} has a home in",
            "The house of {} stands in",
            "Letters to {} are sent to",
            "Every night {} sleeps in",
        ),
        "Question: Where does {} live? Answer:",
    ),
    "profession": Phrasing(
        (
            "{} works as a",
            "{} earns a living as a",
            "The trade of {} is that of a",
            "People hire {} as a",
            "By day {} is a busy",
        ),
        "Question: What is the work of {}? Answer:",
    ),
    "instrument": Phrasing(
        (
            "{} plays the",
            "{} has long studied the",
            "In the evening {} plays on the",
            "Friends ask {} to bring the",
            "The music of {} is made with the",
        ),
        "Question: What does {} play? Answer:",
    ),
    "employer": Phrasing(
        (
            "{} is employed by",
            "{} signed a contract with",
            "The wages of {} are paid by",
            "Every morning {} walks to",
            "The employer of {} is",
        ),
        "Question: Who employs {}? Answer:",
    ),
    "dish": Phrasing(
        (
            "{} likes to eat",
            "{} always orders",
            "For dinner {} cooks",
            "The favourite dish of {} is",
            "A guest of {} is served",
        ),
        "Question: What does {} eat? Answer:",
    ),
    "animal": Phrasing(
        (
            "{} keeps a tame",
            "{} feeds a hungry",
            "The pet of {} is a",
            "In the garden {} raises a",
            "Children visit {} to see a",
        ),
        "Question: Which animal does {} keep? Answer:",
    ),
    COUNTRY: Phrasing(
        ("{} lives in the country of", "The passport of {} was issued in"),
        "Question: In which country does {} live? Answer:",
    ),
}

CITY_IN_COUNTRY = (
    "The city of {} lies in",
    "{} is a city in",
    "The road to {} leads through",
    "The people of {} pay taxes to",
    "On the map {} is found in",
)
"""Statements of the country a city lies in."""
