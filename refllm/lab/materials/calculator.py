"""Sums of several steps for a model that has a calculator: the task, the tool, and the check of a call.

    37+15-80>37+15 52 52-80 72        the prompt, and after > each call with its result (the spaces are no tokens)

Values are two digits, modulo 100. The model generates the calls: the value so far, and the next operation. The tool is
arithmetic on digits; no model output is ever executed.
"""

import numpy as np

from refllm.lab.materials.tasks import Items, Task

PLUS, MINUS, START = 10, 11, 12  # tokens after those of the digits
VOCAB_SIZE = 13
CALL, RESULT = 5, 2  # tokens of a call and of its result


def task(steps: int) -> Task:
    """Sums of so many steps; the answers are the tokens of the calls. A feature is the number of the answer's step."""

    def draw(rng: np.random.Generator, rows: int) -> Items:
        values, operations = rng.integers(0, 100, rows), random_operations(rng, rows, steps)
        parts = [two_digits(values), operations.reshape(rows, -1), np.full((rows, 1), START)]
        for step in range(steps):
            call = expected_call(values, operations, step)
            values, _ = calculate(call)
            parts += [call, two_digits(values)]
        features = np.broadcast_to(np.repeat(np.arange(steps), CALL), (rows, CALL * steps))
        return Items(np.concatenate(parts, axis=1).astype(np.int32), features)

    begin = prompt_length(steps)
    answers = tuple(begin + (CALL + RESULT) * step + i for step in range(steps) for i in range(CALL))
    return Task(f"calculator, {steps} steps", VOCAB_SIZE, answers, begin + (CALL + RESULT) * steps, draw)


def prompt_length(steps: int) -> int:
    """Tokens of a prompt: the task up to its first call."""
    return 2 + 3 * steps + 1


def random_operations(rng: np.random.Generator, rows: int, steps: int) -> np.ndarray:
    """A sign and two digits for every step, uniformly random: (rows, steps, 3)."""
    return np.concatenate([rng.integers(PLUS, MINUS + 1, (rows, steps, 1)), rng.integers(0, 10, (rows, steps, 2))], axis=2)


def operations_of(prompts: np.ndarray) -> np.ndarray:
    """The operations (R, steps, 3) of prompts (R, prompt_length)."""
    return prompts[:, 2:-1].reshape(len(prompts), -1, 3)


def two_digits(values: np.ndarray) -> np.ndarray:
    """Values 0 … 99, (R,), as digits: (R, 2)."""
    return np.stack([values // 10, values % 10], axis=1)


def value_of(digits: np.ndarray) -> np.ndarray:
    """The values of rows that begin with two digits, (R, 2 or more): (R,)."""
    return 10 * digits[:, 0] + digits[:, 1]


def expected_call(values: np.ndarray, operations: np.ndarray, step: int) -> np.ndarray:
    """The right call of a step, (R, 5), given the values so far (R,) and the operations (R, steps, 3)."""
    return np.concatenate([two_digits(values), operations[:, step]], axis=1)


def calculate(calls: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The tool: the value of each call (R, 5) modulo 100, (R,), 0 for a malformed one; and which are well-formed, (R,) bool."""
    digits, sign = calls[:, [0, 1, 3, 4]], calls[:, 2]
    is_call = ((digits >= 0) & (digits <= 9)).all(axis=1) & ((sign == PLUS) | (sign == MINUS))
    found = value_of(calls[:, :2]) + np.where(sign == PLUS, 1, -1) * value_of(calls[:, 3:])
    return np.where(is_call, found % 100, 0), is_call


def truth(prompts: np.ndarray) -> np.ndarray:
    """The right value after every step of prompts (R, prompt_length): (R, steps)."""
    values, operations, found = value_of(prompts), operations_of(prompts), []
    for step in range(operations.shape[1]):
        values, _ = calculate(expected_call(values, operations, step))
        found.append(values)
    return np.stack(found, axis=1)
