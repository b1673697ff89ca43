"""CuPy's kernels on the CPU: the same CUDA C compiled as C++, a block's threads as real threads that meet at __syncthreads."""

import ctypes
import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import refllm.backends.kernels

THREADS = 4  # a block's, few enough to start for every launch

AROUND = """
#include <math.h>
#include <pthread.h>
#include <thread>
#include <vector>
#define __global__
#define __device__ static
#define __shared__ static
#define __syncthreads() pthread_barrier_wait(&meeting)
struct Index {{ unsigned x, y, z; }};
static thread_local Index threadIdx, blockIdx;
static pthread_barrier_t meeting;
{source}
template <class... P> static void run(void (*kernel)(P...), unsigned blocks_x, unsigned blocks_y, P... arguments) {{
    pthread_barrier_init(&meeting, nullptr, THREADS);
    std::vector<std::thread> threads;
    for (unsigned t = 0; t < THREADS; ++t) threads.emplace_back([=] {{
        threadIdx = {{t, 0, 0}};
        for (unsigned y = 0; y < blocks_y; ++y) for (unsigned x = 0; x < blocks_x; ++x) {{
            blockIdx = {{x, y, 0}};
            kernel(arguments...);
            pthread_barrier_wait(&meeting);  // one block after another: they share one copy of __shared__
        }}
    }});
    for (auto& thread : threads) thread.join();
}}
{doors}
"""
SCALARS = {"float32": ctypes.c_float, "float64": ctypes.c_double, "int32": ctypes.c_int, "int64": ctypes.c_longlong}


def as_cpp(source: str) -> str:
    """The whole C++ file: the kernels, and a door `run_NAME(blocks_x, blocks_y, …)` to each."""
    doors = []
    for name, parameters in re.findall(r"__global__ void (\w+)\(([^)]*)\)", source):
        names = ", ".join(re.findall(r"(\w+)\s*(?:,|$)", parameters))
        doors.append(f'extern "C" void run_{name}(unsigned bx, unsigned by, {parameters}) {{ run({name}, bx, by, {names}); }}')
    return AROUND.format(source=source, doors="\n".join(doors))


def built(source: str, options: tuple[str, ...], folder: Path) -> ctypes.CDLL:
    folder.mkdir()
    (folder / "kernels.cpp").write_text(as_cpp(source))
    command = ["g++", "-std=c++17", "-O1", "-fPIC", "-shared", "-pthread", *options, "kernels.cpp", "-o", "kernels.so"]
    subprocess.run(command, cwd=folder, check=True)
    return ctypes.CDLL(str(folder / "kernels.so"))


@pytest.fixture(scope="session")
def cupy_kernels_on_cpu(tmp_path_factory) -> ModuleType:
    """The module of CuPy's kernels, its arrays NumPy's, its launches run on the CPU. CuPy need not be installed."""
    if shutil.which("g++") is None:
        pytest.skip("no g++ to compile CuPy's kernels for the CPU")
    path = Path(refllm.backends.kernels.__path__[0]) / "cupy_kernels.py"
    spec = importlib.util.spec_from_file_location("cupy_kernels_on_cpu", path)
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "cupy", np)  # the module uses only names that both have, and RawModule to launch
        spec.loader.exec_module(module)
    module.THREADS = THREADS
    folder = tmp_path_factory.mktemp("cupy_kernels")
    libraries = {dtype: built(module.SOURCE, module.options(dtype), folder / dtype) for dtype in ("float32", "float64")}

    def launch(name, dtype, blocks, arguments):
        def passed(a):
            if not isinstance(a, np.ndarray):
                return SCALARS[a.dtype.name](a)
            assert a.flags.c_contiguous or name == "rope", f"{name} takes elements one after the other"
            return ctypes.c_void_p(a.ctypes.data)

        x, y = (*blocks, 1)[:2]
        getattr(libraries[dtype], f"run_{name}")(x, y, *map(passed, arguments))

    module.launch = launch
    return module
