"""All kernels of the CuPy backend: CUDA C as plain strings, and the ops that launch them.

Every op is one or two launches, none of which waits for the device. Arrays hold T: float, double, or half stored in 16 bits;
arithmetic is in A: float for halves, else T itself. Rows get a block of threads each, elements a thread each. No sum uses
atomics, so the same inputs give the same bits.
"""

import functools
import math
from typing import Any, NamedTuple

import cupy
import numpy as np

from refllm.array_api import OPS

THREADS = 256  # a power of two: sums over a block halve it
REAL = {"float16": "-DHALF", "float32": "-DREAL=float", "float64": "-DREAL=double"}  # by dtype, the compiler's option

PRELUDE = """
#ifdef HALF
typedef unsigned short T;
typedef float A;
__device__ A load(T x) { A y; asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x)); return y; }
__device__ T store(A y) { T x; asm("cvt.rn.f16.f32 %0, %1;" : "=h"(x) : "f"(y)); return x; }
#else
typedef REAL T;
typedef REAL A;
__device__ A load(T x) { return x; }
__device__ T store(A y) { return y; }
#endif
typedef long long Long;

// The sum of every thread's x, for all threads of the block.
__device__ A block_sum(A x) {
    __shared__ A part[THREADS];
    __syncthreads();  // the result before this one has been read
    part[threadIdx.x] = x;
    for (int half = THREADS / 2; half > 0; half /= 2) {
        __syncthreads();
        if (threadIdx.x < half) part[threadIdx.x] += part[threadIdx.x + half];
    }
    __syncthreads();
    return part[0];
}

// The largest of every thread's x, for all threads of the block; NaN if one is.
__device__ A block_max(A x) {
    __shared__ A part[THREADS];
    __syncthreads();
    part[threadIdx.x] = x;
    for (int half = THREADS / 2; half > 0; half /= 2) {
        __syncthreads();
        if (threadIdx.x < half) {
            A other = part[threadIdx.x + half];
            if (other > part[threadIdx.x] || other != other) part[threadIdx.x] = other;
        }
    }
    __syncthreads();
    return part[0];
}

// The largest of a row of D, for all threads of the block; NaN if one is.
__device__ A row_max(const T* row, Long D) {
    A top = load(row[0]);
    for (Long d = threadIdx.x; d < D; d += THREADS) {
        A z = load(row[d]);
        if (z > top || z != z) top = z;
    }
    return block_max(top);
}
"""

NORMS = """
// A block a row.
extern "C" __global__ void rms_norm(const T* x, const T* gain, A eps, T* y, A* r, Long D) {
    const T* row = x + blockIdx.x * D;
    A squares = 0;
    for (Long d = threadIdx.x; d < D; d += THREADS) squares += load(row[d]) * load(row[d]);
    A scale = 1 / sqrt(block_sum(squares) / D + eps);
    for (Long d = threadIdx.x; d < D; d += THREADS) y[blockIdx.x * D + d] = store(load(row[d]) * scale * load(gain[d]));
    if (threadIdx.x == 0) r[blockIdx.x] = scale;
}

extern "C" __global__ void layer_norm(const T* x, const T* gain, const T* bias, A eps, T* y, A* mean, A* r, Long D) {
    const T* row = x + blockIdx.x * D;
    A sum = 0, squares = 0;
    for (Long d = threadIdx.x; d < D; d += THREADS) sum += load(row[d]);
    A centre = block_sum(sum) / D;
    for (Long d = threadIdx.x; d < D; d += THREADS) squares += (load(row[d]) - centre) * (load(row[d]) - centre);
    A scale = 1 / sqrt(block_sum(squares) / D + eps);
    for (Long d = threadIdx.x; d < D; d += THREADS) {
        y[blockIdx.x * D + d] = store((load(row[d]) - centre) * scale * load(gain[d]) + load(bias[d]));
    }
    if (threadIdx.x == 0) {
        mean[blockIdx.x] = centre;
        r[blockIdx.x] = scale;
    }
}

// With n = (x - mean)·r and dn = dy·gain: dx = r·(dn - level - n·mean(dn·n)), where level is mean(dn), or 0 for rms_norm.
extern "C" __global__ void norm_dx(const T* dy, const T* x, const T* gain, const A* mean, const A* r, int centred,
                                   T* dx, Long D) {
    Long start = blockIdx.x * D;
    A centre = centred ? mean[blockIdx.x] : 0, scale = r[blockIdx.x];
    A along = 0, level = 0;
    for (Long d = threadIdx.x; d < D; d += THREADS) {
        A dn = load(dy[start + d]) * load(gain[d]);
        along += dn * (load(x[start + d]) - centre) * scale;
        level += dn;
    }
    along = block_sum(along) / D;
    level = block_sum(level) / D;
    if (!centred) level = 0;
    for (Long d = threadIdx.x; d < D; d += THREADS) {
        A n = (load(x[start + d]) - centre) * scale;
        dx[start + d] = store(scale * (load(dy[start + d]) * load(gain[d]) - level - n * along));
    }
}

// A thread a column; blockIdx.y walks over its share of the rows, and the shares are added up afterwards.
extern "C" __global__ void norm_dgain(const T* dy, const T* x, const A* mean, const A* r, int centred,
                                      A* dgain, A* dbias, Long N, Long D, Long share) {
    Long d = (Long)blockIdx.x * THREADS + threadIdx.x;
    if (d >= D) return;
    Long stop = (blockIdx.y + 1) * share < N ? (blockIdx.y + 1) * share : N;
    A gained = 0, biased = 0;
    for (Long n = blockIdx.y * share; n < stop; ++n) {
        A g = load(dy[n * D + d]);
        gained += g * (load(x[n * D + d]) - (centred ? mean[n] : 0)) * r[n];
        biased += g;
    }
    dgain[blockIdx.y * D + d] = gained;
    dbias[blockIdx.y * D + d] = biased;
}
"""

SOFTMAX = """
// A block a row.
extern "C" __global__ void softmax(const T* x, T* p, Long D) {
    const T* row = x + blockIdx.x * D;
    A top = row_max(row, D), sum = 0;
    for (Long d = threadIdx.x; d < D; d += THREADS) sum += exp(load(row[d]) - top);
    A total = block_sum(sum);
    for (Long d = threadIdx.x; d < D; d += THREADS) p[blockIdx.x * D + d] = store(exp(load(row[d]) - top) / total);
}

// dx = scale · p · (dp - Σ dp·p)
extern "C" __global__ void softmax_dx(const T* dp, const T* p, A scale, T* dx, Long D) {
    Long start = blockIdx.x * D;
    A sum = 0;
    for (Long d = threadIdx.x; d < D; d += THREADS) sum += load(dp[start + d]) * load(p[start + d]);
    A along = block_sum(sum);
    for (Long d = threadIdx.x; d < D; d += THREADS) {
        dx[start + d] = store(scale * load(p[start + d]) * (load(dp[start + d]) - along));
    }
}

// In place over scores (B, H, Ts, S). Key s is seen by query t, at position start + t, as attention's Mask says;
// a negative window is none. A query that sees nothing gets zeros. valid: (B, S), read only if padded.
extern "C" __global__ void masked_softmax(T* scores, const bool* valid, int padded, Long start, int causal, Long window,
                                          Long HT, Long Ts, Long S) {
    Long row = blockIdx.x, query = start + row % Ts;
    T* z = scores + row * S;
    const bool* seen = valid + (padded ? row / HT * S : 0);  // by this row's sequence
    Long first = window >= 0 && query - window + 1 > 0 ? query - window + 1 : 0;
    Long stop = causal && query + 1 < S ? query + 1 : S;
    A top = -1e30, sum = 0;
    for (Long s = first + threadIdx.x; s < stop; s += THREADS) {
        A score = load(z[s]);
        if (!(padded && !seen[s]) && (score > top || score != score)) top = score;
    }
    top = block_max(top);
    for (Long s = first + threadIdx.x; s < stop; s += THREADS) {
        if (!(padded && !seen[s])) sum += exp(load(z[s]) - top);
    }
    A total = block_sum(sum);
    for (Long s = threadIdx.x; s < S; s += THREADS) {
        bool sees = s >= first && s < stop && !(padded && !seen[s]);
        z[s] = store(sees ? exp(load(z[s]) - top) / total : 0);
    }
}
"""

ACTIVATIONS = """
// A thread an element. SLOPE is √(2/π), CUBIC 0.044715, as in the layer.
extern "C" __global__ void gelu_tanh(const T* x, T* y, Long n) {
    Long i = (Long)blockIdx.x * THREADS + threadIdx.x;
    if (i >= n) return;
    A v = load(x[i]);
    y[i] = store(v * (1 + tanh((A)SLOPE * (v + (A)CUBIC * v * v * v))) / 2);
}

extern "C" __global__ void gelu_tanh_dx(const T* dy, const T* x, T* dx, Long n) {
    Long i = (Long)blockIdx.x * THREADS + threadIdx.x;
    if (i >= n) return;
    A v = load(x[i]);
    A t = tanh((A)SLOPE * (v + (A)CUBIC * v * v * v));
    A slope = (1 - t * t) * (A)SLOPE * (1 + 3 * (A)CUBIC * v * v);
    dx[i] = store(load(dy[i]) * (1 + t + v * slope) / 2);
}

// ROOT_HALF is √½, DENSITY 1/√(2π).
extern "C" __global__ void gelu_erf(const T* x, T* y, Long n) {
    Long i = (Long)blockIdx.x * THREADS + threadIdx.x;
    if (i >= n) return;
    A v = load(x[i]);
    y[i] = store(v * (1 + erf(v * (A)ROOT_HALF)) / 2);
}

extern "C" __global__ void gelu_erf_dx(const T* dy, const T* x, T* dx, Long n) {
    Long i = (Long)blockIdx.x * THREADS + threadIdx.x;
    if (i >= n) return;
    A v = load(x[i]);
    dx[i] = store(load(dy[i]) * ((1 + erf(v * (A)ROOT_HALF)) / 2 + v * (A)DENSITY * exp(v * v / -2)));
}

__device__ A sigmoid(A v) {
    A e = exp(v < 0 ? v : -v);  // never overflows
    return (v < 0 ? e : 1) / (1 + e);
}

extern "C" __global__ void silu(const T* x, T* y, Long n) {
    Long i = (Long)blockIdx.x * THREADS + threadIdx.x;
    if (i < n) y[i] = store(load(x[i]) * sigmoid(load(x[i])));
}

extern "C" __global__ void silu_dx(const T* dy, const T* x, T* dx, Long n) {
    Long i = (Long)blockIdx.x * THREADS + threadIdx.x;
    if (i >= n) return;
    A v = load(x[i]), s = sigmoid(v);
    dx[i] = store(load(dy[i]) * s * (1 + v * (1 - s)));
}
"""

ROPE = """
// A thread a pair. y: (B, H, Ts, K) in order, x: the same by its strides. The pair i of a head is (first·i, first·i + apart).
// cos and sin: (Ts, K/2), or (B, 1, Ts, K/2) when batched. turn is 1, or -1 to turn back.
extern "C" __global__ void rope(const T* x, const T* cos, const T* sin, A turn, T* y, Long n, Long H, Long Ts, Long half,
                                Long by_B, Long by_H, Long by_T, Long by_K, Long first, Long apart, int batched) {
    Long pair = (Long)blockIdx.x * THREADS + threadIdx.x;
    if (pair >= n) return;
    Long i = pair % half, t = pair / half % Ts, h = pair / half / Ts % H, b = pair / half / Ts / H;
    const T* from = x + b * by_B + h * by_H + t * by_T + first * i * by_K;
    T* to = y + pair / half * 2 * half + first * i;
    Long angle = ((batched ? b : 0) * Ts + t) * half + i;
    A p = load(from[0]), q = load(from[apart * by_K]);
    A c = load(cos[angle]), s = turn * load(sin[angle]);
    to[0] = store(p * c - q * s);
    to[apart] = store(p * s + q * c);
}
"""

CROSS_ENTROPY = """
// A block a row of logits. The loss of an ignored target is 0; that of one outside the vocabulary is NaN.
extern "C" __global__ void cross_entropy(const T* logits, const Long* targets, Long ignored, A* losses, A* log_z, Long V) {
    const T* row = logits + blockIdx.x * V;
    Long target = targets[blockIdx.x];
    A top = row_max(row, V), sum = 0;
    for (Long v = threadIdx.x; v < V; v += THREADS) sum += exp(load(row[v]) - top);
    A log_sum = log(block_sum(sum));
    if (threadIdx.x != 0) return;
    log_z[blockIdx.x] = top + log_sum;
    if (target == ignored) losses[blockIdx.x] = 0;
    else if (target < 0 || target >= V) losses[blockIdx.x] = sqrt((A)-1);
    else losses[blockIdx.x] = log_sum - (load(row[target]) - top);
}

// dz = (softmax(z) - onehot(target)) · dloss / kept
extern "C" __global__ void cross_entropy_dz(const T* dloss, const T* logits, const Long* targets, Long ignored, const A* log_z,
                                            const A* kept, T* dlogits, Long V) {
    Long start = blockIdx.x * V, target = targets[blockIdx.x];
    A share = target == ignored ? 0 : load(dloss[0]) / kept[0];
    for (Long v = threadIdx.x; v < V; v += THREADS) {
        A p = exp(load(logits[start + v]) - log_z[blockIdx.x]);
        dlogits[start + v] = store((v == target ? p - 1 : p) * share);
    }
}
"""

ADAMW = """
// A thread an element, in place. undo_m and undo_v are 1 - beta1^t and 1 - beta2^t.
extern "C" __global__ void adamw(T* p, const T* g, T* m, T* v, A lr, A beta1, A beta2, A eps, A keep, A undo_m, A undo_v,
                                 Long n_decayed, Long n) {
    Long i = (Long)blockIdx.x * THREADS + threadIdx.x;
    if (i >= n) return;
    A grad = load(g[i]);
    A mean = beta1 * load(m[i]) + (1 - beta1) * grad;
    A square = beta2 * load(v[i]) + (1 - beta2) * grad * grad;
    m[i] = store(mean);
    v[i] = store(square);
    A ascent = (mean / undo_m) / (sqrt(square / undo_v) + eps);
    p[i] = store(load(p[i]) * (i < n_decayed ? keep : 1) - lr * ascent);
}
"""

ADD_ROWS = """
// A thread an element of total: (V, D). order sorts the indices; those of row v stand from begin[v] to before begin[v + 1].
extern "C" __global__ void add_rows(const T* rows, const Long* order, const Long* begin, T* total, Long D, Long n) {
    Long i = (Long)blockIdx.x * THREADS + threadIdx.x;
    if (i >= n) return;
    A sum = load(total[i]);
    for (Long k = begin[i / D]; k < begin[i / D + 1]; ++k) sum += load(rows[order[k] * D + i % D]);
    total[i] = store(sum);
}
"""

SOURCE = PRELUDE + NORMS + SOFTMAX + ACTIVATIONS + ROPE + CROSS_ENTROPY + ADAMW + ADD_ROWS


def options(dtype: str) -> tuple[str, ...]:
    """The compiler's options for arrays of a dtype."""
    constants = {
        "THREADS": THREADS,
        "SLOPE": math.sqrt(2 / math.pi),
        "CUBIC": 0.044715,
        "ROOT_HALF": math.sqrt(0.5),
        "DENSITY": 1 / math.sqrt(2 * math.pi),
    }
    return (REAL[dtype], *(f"-D{name}={value!r}" for name, value in constants.items()))


@functools.cache
def compiled(dtype: str) -> Any:
    """SOURCE for one dtype, compiled at its first launch; CuPy keeps it on disk."""
    return cupy.RawModule(code=SOURCE, options=options(dtype))


def launch(name: str, dtype: str, blocks: tuple[int, ...], arguments: tuple) -> None:
    """Start a kernel on so many blocks of THREADS threads."""
    compiled(dtype).get_function(name)(blocks, (THREADS,), arguments)


def launch_elements(name: str, x: Any, arguments: tuple) -> None:
    """Start a kernel with a thread for each element of x, whose number it takes last."""
    launch(name, x.dtype.name, (-(-x.size // THREADS),), (*arguments, np.int64(x.size)))


def served(*arrays: Any) -> bool:
    """Whether the kernels take these arrays: of one dtype they know, with elements."""
    first = arrays[0].dtype
    return first.name in REAL and all(a.dtype == first and a.size > 0 for a in arrays)


def wide(dtype: Any) -> Any:
    """A, the dtype of arithmetic."""
    return np.promote_types(dtype, np.float32)


def ordered(x: Any) -> Any:
    """x with its elements one after the other."""
    return cupy.ascontiguousarray(x)


def reference(name: str, *arguments: Any) -> Any:
    return OPS[name].reference(*arguments)  # type: ignore[attr-defined]  # every op has it


class Normed(NamedTuple):
    x: Any  # (..., D)
    gain: Any  # (D,)
    mean: Any  # (N,), or (1,) and unused
    r: Any  # (N,)
    centred: bool


def rms_norm(x, gain, eps):
    if not served(x, gain):
        return reference("rms_norm", x, gain, eps)
    x, A, D = ordered(x), wide(x.dtype), x.shape[-1]
    N = x.size // D
    y, r = cupy.empty(x.shape, dtype=x.dtype), cupy.empty((N,), dtype=A)
    launch("rms_norm", x.dtype.name, (N,), (x, ordered(gain), A.type(eps), y, r, np.int64(D)))
    return y, Normed(x, gain, r[:1], r, False)


def layer_norm(x, gain, bias, eps):
    if not served(x, gain, bias):
        return reference("layer_norm", x, gain, bias, eps)
    x, A, D = ordered(x), wide(x.dtype), x.shape[-1]
    N = x.size // D
    y, mean, r = cupy.empty(x.shape, dtype=x.dtype), cupy.empty((N,), dtype=A), cupy.empty((N,), dtype=A)
    launch("layer_norm", x.dtype.name, (N,), (x, ordered(gain), ordered(bias), A.type(eps), y, mean, r, np.int64(D)))
    return y, Normed(x, gain, mean, r, True)


def norm_backward(dy, saved: Normed):
    """dx, dgain and dbias of either norm."""
    x, gain, mean, r, centred = saved
    dy, (A, D, N) = ordered(dy.astype(x.dtype, copy=False)), (r.dtype, x.shape[-1], r.size)
    dx = cupy.empty(x.shape, dtype=x.dtype)
    launch("norm_dx", x.dtype.name, (N,), (dy, x, ordered(gain), mean, r, np.int32(centred), dx, np.int64(D)))
    share = -(-N // min(64, N))  # rows that one thread adds up
    shares = -(-N // share)
    dgain, dbias = cupy.empty((shares, D), dtype=A), cupy.empty((shares, D), dtype=A)
    arguments = (dy, x, mean, r, np.int32(centred), dgain, dbias, np.int64(N), np.int64(D), np.int64(share))
    launch("norm_dgain", x.dtype.name, (-(-D // THREADS), shares), arguments)
    return dx, cupy.sum(dgain, axis=0).astype(x.dtype), cupy.sum(dbias, axis=0).astype(x.dtype)


def rms_norm_backward(dy, saved):
    if not isinstance(saved, Normed):
        return reference("rms_norm_backward", dy, saved)
    return norm_backward(dy, saved)[:2]


def layer_norm_backward(dy, saved):
    if not isinstance(saved, Normed):
        return reference("layer_norm_backward", dy, saved)
    return norm_backward(dy, saved)


def softmax(x):
    if not served(x):
        return reference("softmax", x)
    x = ordered(x)
    p = cupy.empty(x.shape, dtype=x.dtype)
    launch("softmax", x.dtype.name, (x.size // x.shape[-1],), (x, p, np.int64(x.shape[-1])))
    return p, p


def softmax_backward(dp, p):
    if not served(dp, p):
        return reference("softmax_backward", dp, p)
    return scaled_softmax_backward(dp, p, 1.0)


def scaled_softmax_backward(dp, p, scale):
    dp, p = ordered(dp), ordered(p)
    dx = cupy.empty(p.shape, dtype=p.dtype)
    arguments = (dp, p, wide(p.dtype).type(scale), dx, np.int64(p.shape[-1]))
    launch("softmax_dx", p.dtype.name, (p.size // p.shape[-1],), arguments)
    return dx


class Attended(NamedTuple):
    q: Any  # (B, G, R·T, K), in the dtype of arithmetic
    k: Any  # (B, G, S, K), likewise
    v: Any  # (B, G, S, K), likewise
    p: Any  # (B, G, R·T, S), likewise
    t: Any  # (B, G, R·T, S), likewise: tanh(scores / softcap), or None where nothing is capped
    scale: float
    shape: tuple[int, ...]  # of the q that was given
    dtype: Any  # of the q that was given


def attention(q, k, v, mask, scale, softcap=None):
    if not served(q, k, v):
        return reference("attention", q, k, v, mask, scale, softcap)
    (B, H, T, K), (_, G, S, _), A = q.shape, k.shape, wide(q.dtype)
    shape, dtype = q.shape, q.dtype
    q, k, v = q.astype(A, copy=False).reshape(B, G, H // G * T, K), k.astype(A, copy=False), v.astype(A, copy=False)
    p = (q * scale) @ k.swapaxes(-1, -2)
    t = None if softcap is None else cupy.tanh(p / softcap)
    p = ordered(p if t is None else t * softcap)
    padded = mask.valid is not None
    valid = ordered(mask.valid) if padded else p
    rules = (np.int32(padded), np.int64(mask.start), np.int32(mask.causal), np.int64(-1 if mask.window is None else mask.window))
    launch("masked_softmax", A.name, (B * H * T,), (p, valid, *rules, np.int64(H * T), np.int64(T), np.int64(S)))
    return (p @ v).reshape(shape).astype(dtype, copy=False), Attended(q, k, v, p, t, scale, shape, dtype)


def attention_backward(dy, saved):
    if not isinstance(saved, Attended):
        return reference("attention_backward", dy, saved)
    q, k, v, p, t, scale, shape, dtype = saved
    dy = dy.astype(p.dtype, copy=False).reshape(q.shape)
    ds = scaled_softmax_backward(dy @ v.swapaxes(-1, -2), p, scale)
    ds = ds if t is None else ds * (1 - t * t)
    dq, dk, dv = ds @ k, ds.swapaxes(-1, -2) @ q, p.swapaxes(-1, -2) @ dy
    return dq.reshape(shape).astype(dtype, copy=False), dk.astype(dtype, copy=False), dv.astype(dtype, copy=False)


class Activated(NamedTuple):
    x: Any


def activation(name: str):
    """The kernels of a function of single numbers, and of its gradient, by the name of its op."""

    def forward(x):
        if not served(x):
            return reference(name, x)
        x = ordered(x)
        y = cupy.empty(x.shape, dtype=x.dtype)
        launch_elements(name, x, (x, y))
        return y, Activated(x)

    def backward(dy, saved):
        if not isinstance(saved, Activated):
            return reference(f"{name}_backward", dy, saved)
        dx = cupy.empty(saved.x.shape, dtype=saved.x.dtype)
        launch_elements(f"{name}_dx", dx, (ordered(dy.astype(dx.dtype, copy=False)), saved.x, dx))
        return dx

    return forward, backward


gelu_tanh, gelu_tanh_backward = activation("gelu_tanh")
gelu_erf, gelu_erf_backward = activation("gelu_erf")


def silu(a):
    return _silu(a)


_silu, silu_backward = activation("silu")


class Turned(NamedTuple):
    cos: Any
    sin: Any


def turned(x, cos, sin, first: int, apart: int, turn: float):
    """Turn the pairs (first·i, first·i + apart) of every head of x: (B, H, T, K)."""
    (_, H, T, K), item = x.shape, x.dtype.itemsize
    cos, sin = ordered(cos), ordered(sin)
    y = cupy.empty(x.shape, dtype=x.dtype)
    pairs = x.size // 2
    sizes = (pairs, H, T, K // 2, *(stride // item for stride in x.strides), first, apart)
    arguments = (x, cos, sin, wide(x.dtype).type(turn), y, *map(np.int64, sizes), np.int32(cos.ndim == 4))
    launch("rope", x.dtype.name, (-(-pairs // THREADS),), arguments)
    return y


def turns(x, cos, sin) -> bool:
    """Whether the kernel takes these: x: (B, H, T, K), cos and sin: (T, K/2) or (B, 1, T, K/2)."""
    B, _, T, K = x.shape
    return served(x, cos, sin) and cos.shape == sin.shape and cos.shape in ((T, K // 2), (B, 1, T, K // 2))


def rope(x, cos, sin):
    if not turns(x, cos, sin):
        return reference("rope", x, cos, sin)
    return turned(x, cos, sin, 1, x.shape[-1] // 2, 1.0), Turned(cos, sin)


def rope_backward(dy, saved):
    if not isinstance(saved, Turned) or not turns(dy, *saved):
        return reference("rope_backward", dy, saved)
    return turned(dy, *saved, 1, dy.shape[-1] // 2, -1.0)


def rope_interleaved(x, cos, sin):
    if not turns(x, cos, sin):
        return reference("rope_interleaved", x, cos, sin)
    return turned(x, cos, sin, 2, 1, 1.0), Turned(cos, sin)


def rope_interleaved_backward(dy, saved):
    if not isinstance(saved, Turned) or not turns(dy, *saved):
        return reference("rope_interleaved_backward", dy, saved)
    return turned(dy, *saved, 2, 1, -1.0)


class Compared(NamedTuple):
    logits: Any  # (..., V)
    targets: Any  # (N,) int64
    ignore_index: int
    log_z: Any  # (N,): log Σ exp z
    kept: Any  # (1,): how many targets count, at least 1


def cross_entropy(logits, targets, ignore_index=-100):
    if not served(logits):
        return reference("cross_entropy", logits, targets, ignore_index)
    logits, A, V = ordered(logits), wide(logits.dtype), logits.shape[-1]
    targets = ordered(targets.reshape(-1).astype(np.int64))
    losses, log_z = cupy.empty(targets.shape, dtype=A), cupy.empty(targets.shape, dtype=A)
    arguments = (logits, targets, np.int64(ignore_index), losses, log_z, np.int64(V))
    launch("cross_entropy", logits.dtype.name, (targets.size,), arguments)
    kept = cupy.maximum(cupy.sum(targets != ignore_index, keepdims=True), 1).astype(A)
    loss = (cupy.sum(losses, keepdims=True) / kept).astype(logits.dtype).reshape(())
    return loss, Compared(logits, targets, ignore_index, log_z, kept)


def cross_entropy_backward(dloss, saved):
    if not isinstance(saved, Compared):
        return reference("cross_entropy_backward", dloss, saved)
    logits, targets, ignore_index, log_z, kept = saved
    dlogits = cupy.empty(logits.shape, dtype=logits.dtype)
    dloss = ordered(dloss.astype(logits.dtype, copy=False))
    arguments = (dloss, logits, targets, np.int64(ignore_index), log_z, kept, dlogits, np.int64(logits.shape[-1]))
    launch("cross_entropy_dz", logits.dtype.name, (targets.size,), arguments)
    return dlogits


def adamw_update(parameters, grads, mean, square, step, lr, beta1, beta2, eps, weight_decay, n_decayed):
    vectors = (parameters, grads, mean, square)
    if not served(*vectors) or not all(v.flags.c_contiguous for v in vectors):
        return reference("adamw_update", *vectors, step, lr, beta1, beta2, eps, weight_decay, n_decayed)
    rates = (lr, beta1, beta2, eps, 1 - lr * weight_decay, 1 - beta1**step, 1 - beta2**step)
    arguments = (*vectors, *map(wide(parameters.dtype).type, rates), np.int64(n_decayed))
    launch_elements("adamw", parameters, arguments)
    return parameters, mean, square


def add_rows(total, indices, rows):
    """total: (V, ...) itself, with rows[n]: (...) added to total[indices[n]] in the order of n: the same bits every time."""
    V, N = total.shape[0], indices.size
    if total.size == 0 or N == 0:
        return total
    order = ordered(cupy.argsort(indices, axis=0))  # stable in CuPy
    begin = cupy.searchsorted(indices[order], cupy.arange(V + 1, dtype=indices.dtype))
    arguments = (ordered(rows), order.astype(np.int64), begin.astype(np.int64), total, np.int64(total.size // V))
    launch_elements("add_rows", total, arguments)
    return total


KERNELS = {
    "rms_norm": rms_norm,
    "rms_norm_backward": rms_norm_backward,
    "layer_norm": layer_norm,
    "layer_norm_backward": layer_norm_backward,
    "softmax": softmax,
    "softmax_backward": softmax_backward,
    "attention": attention,
    "attention_backward": attention_backward,
    "gelu_tanh": gelu_tanh,
    "gelu_tanh_backward": gelu_tanh_backward,
    "gelu_erf": gelu_erf,
    "gelu_erf_backward": gelu_erf_backward,
    "silu": silu,
    "silu_backward": silu_backward,
    "rope": rope,
    "rope_backward": rope_backward,
    "rope_interleaved": rope_interleaved,
    "rope_interleaved_backward": rope_interleaved_backward,
    "cross_entropy": cross_entropy,
    "cross_entropy_backward": cross_entropy_backward,
    "adamw_update": adamw_update,
}
