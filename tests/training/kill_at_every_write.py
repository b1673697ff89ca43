"""Kill a run at every moment it is about to open a file for writing or to rename one, go on, and compare what it made.

    python kill_at_every_write.py CONFIG.toml FOLDER [LAST]

Each run is a forked process that SIGKILL ends; a second one goes on. Prints how many moments there were, LAST of them at most;
exits 1 at the first whose outcome differs from that of the run that nobody killed.
"""

import json
import os
import signal
import sys
from pathlib import Path

from refllm.training.config import read
from refllm.training.loop import train
from refllm.training.run import begin, reopen

MADE = ("training_state.safetensors", "model.safetensors", "best/model.safetensors", "tokenizer.json", "data/tokens.bin")


def run_in_a_process(config, folder, moment=None):
    """Begin or go on in a process of its own, which dies at the given moment. Returns whether it was killed."""
    child = os.fork()
    if child == 0:
        if moment is not None:
            sys.addaudithook(killer(folder, moment))
        run = reopen(folder) if (folder / "run.toml").exists() else begin(folder, config)
        for _ in train(run):
            pass
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, -signal.SIGKILL), status
    return status != 0


def killer(folder, moment):
    """An audit hook that kills the process at the moment-th time it touches the folder's files."""
    left = moment

    def hook(event, arguments):
        nonlocal left
        opens = event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        if (opens or event == "os.rename") and str(arguments[0]).startswith(str(folder)):
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    return hook


def outcome(folder):
    """What the run made: the bytes of its files, and what it told, without the times."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    told = [{k: v for k, v in line.items() if k not in ("tokens_per_second", "seconds_left")} for line in lines]
    return {name: (folder / name).read_bytes() for name in MADE} | {"metrics.jsonl": told}


def main():
    config, place = read(sys.argv[1]), Path(sys.argv[2])
    os.fsync = lambda descriptor: None  # a kill, unlike a power cut, loses nothing that was written; this saves minutes
    run_in_a_process(config, place / "whole")
    expected = outcome(place / "whole")
    moment, last = 1, int(sys.argv[3]) if len(sys.argv) > 3 else sys.maxsize
    while moment <= last and run_in_a_process(config, place / f"{moment}", moment):
        run_in_a_process(config, place / f"{moment}")
        differing = [name for name, made in outcome(place / f"{moment}").items() if made != expected[name]]
        if differing:
            sys.exit(f"killed at write {moment}, then resumed: {', '.join(differing)} differ")
        moment += 1
    print(moment - 1)


if __name__ == "__main__":
    main()
