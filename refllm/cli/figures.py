"""Numbers for people: times, counts and sizes with their units."""


def duration(seconds: float) -> str:
    """45 s, 2:05 min, 3:20 h."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02d} min"
    return f"{whole // 3600}:{whole % 3600 // 60:02d} h"


def span(seconds: float) -> str:
    """A short time with three digits: 58.2 µs, 0.79 ms, 41.2 ms, 1.52 s."""
    if seconds >= 1:
        return f"{seconds:.2f} s"
    if seconds < 1e-4:
        return f"{seconds * 1e6:.1f} µs"
    ms = seconds * 1e3
    return f"{ms:.0f} ms" if ms >= 100 else f"{ms:.1f} ms" if ms >= 10 else f"{ms:.2f} ms"


def count(number: float) -> str:
    """12,345; 1.97 million."""
    if number >= 1e9:
        return f"{number / 1e9:.2f} billion"
    return f"{number / 1e6:.2f} million" if number >= 1e6 else f"{number:,.0f}"


def size(n_bytes: float) -> str:
    """Decimal bytes: 379 kB, 7.9 MB."""
    for unit, of in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if n_bytes >= of:
            value = n_bytes / of
            return f"{value:.0f} {unit}" if value >= 100 else f"{value:.1f} {unit}"
    return f"{n_bytes:.0f} B"
