"""A program that implements one op in plain Python, as an outsider would; its arguments make it misbehave."""

import json
import math
import sys


def rms_norm(x, gain, eps, dy):
    """One position forwards and backwards: y, dx, and its part of dgain."""
    r = 1 / math.sqrt(sum(v * v for v in x) / len(x) + eps)
    n = [v * r for v in x]
    dn = [d * g for d, g in zip(dy, gain, strict=True)]
    along = sum(a * b for a, b in zip(dn, n, strict=True)) / len(x)
    y = [v * g for v, g in zip(n, gain, strict=True)]
    return y, [r * (a - b * along) for a, b in zip(dn, n, strict=True)], [a * b for a, b in zip(dy, n, strict=True)]


def answer(request, fault):
    if request["op"] != "rms_norm":
        return {"unsupported": True}
    inputs = request["inputs"]
    shape, values, gain, dy = inputs["x"]["shape"], inputs["x"]["values"], inputs["gain"]["values"], inputs["dy"]["values"]
    D, eps = shape[-1], inputs["eps"] * (2 if fault == "eps" else 1)
    rows = [rms_norm(values[i : i + D], gain, eps, dy[i : i + D]) for i in range(0, len(values), D)]
    outputs = {
        "y": {"dtype": "float64", "shape": shape, "values": [v for y, _, _ in rows for v in y]},
        "dx": {"dtype": "float64", "shape": shape, "values": [v for _, dx, _ in rows for v in dx]},
        "dgain": [sum(column) for column in zip(*(dgain for _, _, dgain in rows), strict=True)],  # nested lists will do
    }
    if fault == "forward only":
        return {"outputs": {"y": outputs["y"]}}
    if fault == "shape":
        return {"outputs": outputs | {"dgain": [0.0]}}
    if fault == "nan":
        return {"outputs": outputs | {"dgain": [math.nan] * D}}
    if fault == "other names":
        return {"outputs": {"result": outputs["y"]}}
    if fault == "error":
        return {"error": "out of memory"}
    return {"outputs": outputs}


if __name__ == "__main__":
    fault = " ".join(sys.argv[1:])
    for line in sys.stdin:
        if fault == "ends":
            sys.exit(3)
        if fault == "silent":
            continue
        print("hello" if fault == "chatter" else json.dumps(answer(json.loads(line), fault)), flush=True)
