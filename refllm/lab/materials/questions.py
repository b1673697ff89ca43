"""Four tasks in plain words, and texts to learn them from: sentiment, translation to French, capitals, and who has what.

    the film was dull and slow . mood : bad
    the red house in French : la maison rouge
    Anna asks : what is the capital of Peru ? Lima
    Paul has a cat . Anna has a kite . Nina has a cup . Oscar has a dog . what has Anna ? Anna has a kite

Each text is one line. Held-out questions combine words as no text for training does. The answer to the last task stands nowhere
but in its line, where two layers of attention can look it up (Olsson 2022, arXiv:2209.11895).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from refllm.evaluation.tasks import Task, filled

THINGS = ("film", "book", "meal", "hotel", "song", "trip", "play", "show")
GOOD = ("great", "lovely", "funny", "clever", "warm", "fresh", "brilliant", "charming", "gentle", "bright")
BAD = ("dull", "slow", "awful", "boring", "ugly", "rude", "noisy", "stale", "clumsy", "dreadful")
NOUNS = {
    "house": "maison",
    "table": "table",
    "car": "voiture",
    "door": "porte",
    "flower": "fleur",
    "city": "ville",
    "chair": "chaise",
    "shirt": "chemise",
    "star": "étoile",
    "window": "fenêtre",
}
COLORS = {"red": "rouge", "green": "verte", "white": "blanche", "black": "noire", "yellow": "jaune", "grey": "grise"}
PEOPLE = (
    *("Anna", "Paul", "Maria", "Peter", "Laura", "David", "Clara", "Simon"),
    *("Nina", "Oscar", "Julia", "Victor", "Emma", "Felix", "Sophie", "Martin"),
)
BELONGINGS = (
    *("dog", "cat", "horse", "hat", "bell", "kite", "drum", "lamp"),
    *("boat", "ring", "coin", "key", "cup", "bike", "ball", "doll"),
)
CAPITALS = {
    **{"France": "Paris", "Italy": "Rome", "Spain": "Madrid", "Japan": "Tokyo", "Egypt": "Cairo", "Greece": "Athens"},
    **{"Russia": "Moscow", "Cuba": "Havana", "Peru": "Lima", "Kenya": "Nairobi", "Norway": "Oslo", "Austria": "Vienna"},
    **{"Poland": "Warsaw", "Ireland": "Dublin", "Portugal": "Lisbon", "China": "Beijing", "Canada": "Ottawa"},
    **{"Germany": "Berlin", "Hungary": "Budapest", "Sweden": "Stockholm", "Finland": "Helsinki", "Vietnam": "Hanoi"},
}
Fields = dict[str, Any]
Line = list[tuple[str, str]]  # what is asked, and the answer, in turn: the text is all of them together


def is_held_out(*words: str) -> bool:
    """Whether a combination of words is held out for evaluation: about a fifth of them, always the same."""
    return sum(sum(word.encode()) * (i + 1) for i, word in enumerate(words)) % 5 == 0


def mood(rng: np.random.Generator) -> Fields:
    """A thing with two adjectives of one sentiment."""
    right = ("good", "bad")[int(rng.integers(2))]
    first, second = rng.choice(GOOD if right == "good" else BAD, 2, replace=False).tolist()
    return {"thing": str(rng.choice(THINGS)), "first": first, "second": second, "answer": right}


def french(rng: np.random.Generator) -> Fields:
    """A thing and its color, and four translations of which one is right."""
    noun, other = rng.choice(list(NOUNS), 2, replace=False).tolist()
    color, wrong = rng.choice(list(COLORS), 2, replace=False).tolist()
    pairs = [(noun, color), (noun, wrong), (other, color), (other, wrong)]
    choices = [f"la {NOUNS[n]} {COLORS[c]}" for n, c in pairs]
    return {"noun": noun, "color": color, "answer": choices[0], "choices": [choices[i] for i in rng.permutation(4)]}


def capital(rng: np.random.Generator) -> Fields:
    """A person who asks for the capital of a country, and four capitals to choose from."""
    countries = rng.choice(list(CAPITALS), 4, replace=False).tolist()
    choices = [CAPITALS[countries[i]] for i in rng.permutation(4)]
    fields = {"person": str(rng.choice(PEOPLE)), "country": countries[0], "answer": CAPITALS[countries[0]]}
    return fields | {"choices": choices}


def reading(rng: np.random.Generator) -> Fields:
    """Four people with a thing each, and which of the four things one of them has."""
    people, things = rng.choice(PEOPLE, 4, replace=False).tolist(), rng.choice(BELONGINGS, 4, replace=False).tolist()
    order = rng.permutation(4)
    told = " . ".join(f"{people[i]} has a {things[i]}" for i in order)
    fields = {"told": told, "person": people[0], "answer": things[0], "choices": [things[i] for i in rng.permutation(4)]}
    return fields | {"beside": list(zip(people[1:], things[1:], strict=True))}


TASKS = {
    "classification": (mood, "the {thing} was {first} and {second} . mood :", ("thing", "first", "second")),
    "translation": (french, "the {color} {noun} in French :", ("color", "noun")),
    "recall": (capital, "{person} asks : what is the capital of {country} ?", ("person", "country")),
    "reading": (reading, "{told} . what has {person} ? {person} has a", ("person", "answer")),
}
LEARNED = {"classification": 1, "translation": 1, "recall": 1, "reading": 9}  # lines, in proportion: the last is the hardest


def combinations(name: str, fields: Fields) -> list[tuple[str, ...]]:
    """The words that a question combines, those that it asks about first."""
    asked = tuple(str(fields[word]) for word in TASKS[name][2])
    return [asked, *fields.get("beside", [])]


def drawn(name: str, rng: np.random.Generator, count: int, held_out: bool) -> list[Fields]:
    """Questions of a task: of a held-out combination of words, or else with no held-out combination in them at all."""
    found: list[Fields] = []
    while len(found) < count:
        fields = TASKS[name][0](rng)
        held = [is_held_out(*words) for words in combinations(name, fields)]
        if held[0] if held_out else not any(held):
            found.append(fields)
    return found


def task(name: str, questions: Sequence[Mapping[str, object]], examples: Sequence[Mapping[str, object]] = ()) -> Task:
    """A task as `refllm evaluate` has them."""
    choices = ("good", "bad") if name == "classification" else "choices"
    return Task(name, TASKS[name][1], "answer", tuple(questions), choices=choices, examples=tuple(examples), between="\n")


def lines(rng: np.random.Generator, count: int) -> list[Line]:
    """Solved questions of all tasks for training, none of them held out. One line asks for what all four people have."""
    shares = np.array(list(LEARNED.values())) / sum(LEARNED.values())
    found = []
    for name in rng.choice(list(LEARNED), count, p=shares).tolist():
        (fields,) = drawn(name, rng, 1, held_out=False)
        first = (filled(TASKS[name][1], fields), f" {fields['answer']}")
        beside = [(f" . what has {person} ? {person} has a", f" {thing}") for person, thing in fields.get("beside", [])]
        found.append([first, *beside])
    return found
