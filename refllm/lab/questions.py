"""Three tasks in plain words, and texts that a model can learn them from: which mood, what in French, what capital.

    the film was dull and slow . mood : bad
    the red house in French : la maison rouge
    Anna asks : what is the capital of Peru ? Lima

Each text is one line. Questions are put with words in combinations that the learned texts leave out.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from refllm.evaluation.tasks import Task

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
PEOPLE = ("Anna", "Paul", "Maria", "Peter", "Laura", "David", "Clara", "Simon")
CAPITALS = {
    **{"France": "Paris", "Italy": "Rome", "Spain": "Madrid", "Japan": "Tokyo", "Egypt": "Cairo", "Greece": "Athens"},
    **{"Russia": "Moscow", "Cuba": "Havana", "Peru": "Lima", "Kenya": "Nairobi", "Norway": "Oslo", "Austria": "Vienna"},
    **{"Poland": "Warsaw", "Ireland": "Dublin", "Portugal": "Lisbon", "China": "Beijing", "Canada": "Ottawa"},
    **{"Germany": "Berlin", "Hungary": "Budapest", "Sweden": "Stockholm", "Finland": "Helsinki", "Vietnam": "Hanoi"},
}
Fields = dict[str, object]


def is_held_out(*words: str) -> bool:
    """Whether a combination of words is kept for questions: a fifth of them, always the same."""
    return sum(sum(word.encode()) * (i + 1) for i, word in enumerate(words)) % 5 == 0


def mood(rng: np.random.Generator) -> Fields:
    """A judgement of a thing in two words."""
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
    """Who asks for the capital of a country, and four capitals."""
    countries = rng.choice(list(CAPITALS), 4, replace=False).tolist()
    choices = [CAPITALS[countries[i]] for i in rng.permutation(4)]
    fields = {"person": str(rng.choice(PEOPLE)), "country": countries[0], "answer": CAPITALS[countries[0]]}
    return fields | {"choices": choices}


TASKS = {
    "classification": (mood, "the {thing} was {first} and {second} . mood :", ("thing", "first", "second")),
    "translation": (french, "the {color} {noun} in French :", ("color", "noun")),
    "answering": (capital, "{person} asks : what is the capital of {country} ?", ("person", "country")),
}


def drawn(name: str, rng: np.random.Generator, count: int, held_out: bool) -> list[Fields]:
    """Questions of a task whose words are, or are not, in a combination that is held out."""
    draw, _, words = TASKS[name]
    found: list[Fields] = []
    while len(found) < count:
        fields = draw(rng)
        if is_held_out(*(str(fields[word]) for word in words)) == held_out:
            found.append(fields)
    return found


def task(name: str, questions: Sequence[Mapping[str, object]], examples: Sequence[Mapping[str, object]] = ()) -> Task:
    """A task as `refllm evaluate` has them."""
    _, template, _ = TASKS[name]
    choices = ("good", "bad") if name == "classification" else "choices"
    return Task(name, template, "answer", tuple(questions), choices=choices, examples=tuple(examples), between="\n")


def lines(rng: np.random.Generator, count: int) -> str:
    """A text to learn from: solved questions of all tasks, none of them held out, each on a line."""
    names = rng.choice(list(TASKS), count).tolist()
    return "".join(solved(name, drawn(name, rng, 1, held_out=False)[0]) for name in names)


def solved(name: str, fields: Mapping[str, object]) -> str:
    """A question with its answer, as a line."""
    from refllm.evaluation.tasks import filled

    return f"{filled(TASKS[name][1], fields)} {fields['answer']}\n"
