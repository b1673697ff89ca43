"""How much memory this process holds, and the most that it held."""

import sys
from pathlib import Path

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def _from_status(field: str) -> int | None:
    """A field of Linux's /proc/self/status in bytes, or None where there is none."""
    if not STATUS.exists():
        return None
    lines = STATUS.read_text().splitlines()
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:")), None)


def peak() -> int:
    """The most bytes resident since the last `forget_peak`, or since the start where the system keeps no other count."""
    found = _from_status("VmHWM")  # unlike getrusage's, not inherited from the process that started this one
    if found is not None:
        return found
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def resident() -> int:
    """Bytes resident now."""
    return _from_status("VmRSS") or peak()


def forget_peak() -> None:
    """Count the peak anew from here, where the system allows it."""
    try:
        CLEAR.write_text("5")  # Linux: reset VmHWM
    except OSError:
        return
