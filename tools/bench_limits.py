"""What the machine can do at best: memory reads, products of matrices, and the packed kernels of int8 and int4."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial

import torch
import torch.nn.functional as F
from bench_cases import Contender, Group, Row, Run, Sizes, timed_by_events

READS, PRODUCTS = "limits.reads", "limits.products"
ROWS = 2
"""Of a step at batch 1 with guidance."""
GROUP = 32
"""Weights of int4 that share a scale."""
MACHINE = "this machine"


def groups(sizes: Sizes) -> Iterator[Group]:
    """Reads and products first; the packed kernels are no limit of the machine, but of torch on it."""
    buffer = sizes.buffer * 2**20
    yield Group(
        "limits",
        READS,
        f"memory reads, {sizes.buffer} MiB",
        "GB/s",
        buffer,
        [
            Contender(MACHINE, "sum", lambda: summed(buffer, sizes)),
            Contender(MACHINE, "fp32 matrix x vector", lambda: multiplied(buffer, torch.float32, sizes)),
            Contender(MACHINE, "bf16 matrix x vector", lambda: multiplied(buffer, torch.bfloat16, sizes)),
        ],
    )
    side = sizes.matrix
    kinds = {"fp32": torch.float32, "bf16": torch.bfloat16}
    products = [Contender(MACHINE, name, partial(product, kind, sizes)) for name, kind in kinds.items()]
    yield Group("limits", PRODUCTS, f"product of {side} x {side} matrices", "GFLOP/s", 2.0 * side**3, products)
    weights = buffer // 8
    for name, width, make in (("int8", 1.0, packed_int8), ("int4", 0.5, packed_int4)):
        kernel = Contender("torch", name, partial(make, weights, sizes))
        task = f"packed {name} weights x {ROWS} rows"
        yield Group("limits", f"limits.{name}", task, "GB/s", weights * width, [kernel])


def best(rows: Iterable[Row]) -> dict[str, float]:
    """Bytes read and floating-point operations done in a second, the best that was seen: other work only takes away."""
    limits: dict[str, float] = {}
    for row in rows:
        if row.times:
            name = {READS: "reads", PRODUCTS: row.option}.get(row.kind, row.kind.removeprefix("limits."))
            limits[name] = max(limits.get(name, 0.0), row.work / min(row.times))
    return limits


def summed(buffer: int, sizes: Sizes) -> Run:
    """Add up a buffer."""
    numbers = torch.ones(buffer // 4, device=sizes.device)
    return repeated(numbers.sum, sizes)


def multiplied(buffer: int, kind: torch.dtype, sizes: Sizes) -> Run:
    """A buffer as a matrix, times a vector."""
    columns = 1024
    matrix = torch.ones(max(1, buffer // kind.itemsize // columns), columns, dtype=kind, device=sizes.device)
    vector = torch.ones(1, columns, dtype=kind, device=sizes.device)
    return repeated(lambda: F.linear(vector, matrix), sizes)


def product(kind: torch.dtype, sizes: Sizes) -> Run:
    """Two square matrices."""
    generator = torch.Generator().manual_seed(sizes.seed)
    left, right = (torch.randn(sizes.matrix, sizes.matrix, generator=generator).to(sizes.device, kind) for _ in "ab")
    return repeated(lambda: left @ right, sizes)


def packed_int8(weights: int, sizes: Sizes) -> Run:
    """torch's kernel for int8 weights and bf16 activations."""
    columns = 1024
    rows = max(1, weights // columns)
    given = torch.ones(ROWS, columns, dtype=torch.bfloat16, device=sizes.device)
    matrix = torch.ones(rows, columns, dtype=torch.int8, device=sizes.device)
    scales = torch.ones(rows, dtype=torch.bfloat16, device=sizes.device)
    return repeated(lambda: torch.ops.aten._weight_int8pack_mm(given, matrix, scales), sizes)


def packed_int4(weights: int, sizes: Sizes) -> Run:
    """torch's kernel for int4 weights and bf16 activations."""
    columns = 1024
    rows = max(64, weights // columns // 64 * 64)
    given = torch.ones(ROWS, columns, dtype=torch.bfloat16, device=sizes.device)
    scales = torch.ones(columns // GROUP, rows, 2, dtype=torch.bfloat16, device=sizes.device)
    if sizes.device == "cpu":
        matrix = torch.ones(rows, columns, dtype=torch.int32)
        packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(matrix, 2)
        return repeated(lambda: torch.ops.aten._weight_int4pack_mm_for_cpu(given, packed, GROUP, scales), sizes)
    pairs = torch.ones(rows, columns // 2, dtype=torch.uint8, device=sizes.device)
    packed = torch.ops.aten._convert_weight_to_int4pack(pairs, 8)
    return repeated(lambda: torch.ops.aten._weight_int4pack_mm(given, packed, GROUP, scales), sizes)


def repeated(work: Callable[[], object], sizes: Sizes) -> Run:
    """On a GPU many in a row, so that none waits for the host."""
    return timed_by_events(work, sizes.device, times=20)
