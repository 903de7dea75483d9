"""Packed linear layers: the kernel computes what the plain product does, for all shapes, dtypes and numbers of rows."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
from torch import Tensor, nn

from audiolm_kit.lm import packed_kernels as kernels
from audiolm_kit.lm.packed import How, Int4Linear, PackedLinear, packed

HOWS: list[How] = ["int8", "int4"]
SHAPES = [(64, 64), (576, 192), (192, 768), (100, 20), (7, 33), (1, 1), (130, 97)]  # outputs, inputs
ROUNDED = {"int8": 0.01, "int4": 0.1}


def a_linear(outputs: int, inputs: int) -> nn.Linear:
    linear = nn.Linear(inputs, outputs, bias=False)
    nn.init.normal_(linear.weight, std=0.05, generator=torch.Generator().manual_seed(0))
    return linear


def some_rows(count: int, inputs: int) -> Tensor:
    return torch.randn(count, inputs, generator=torch.Generator().manual_seed(1))


def error(found: Tensor, wanted: Tensor) -> float:
    return float((found - wanted).norm() / wanted.norm())


@torch.no_grad()
@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("shape", SHAPES)
def test_the_kernel_computes_what_the_plain_product_does(how: How, shape: tuple[int, int]) -> None:
    linear = a_linear(*shape)
    layer = packed(linear, how)
    assert layer.weight.shape == linear.weight.shape and layer.weight.dtype == torch.float32
    if shape != (1, 1):  # two weights that are one another's neighbours may be off by more
        assert error(layer.weight, linear.weight) < ROUNDED[how]
    assert 0 < layer.most_rows  # this CPU has a kernel
    for count in (1, 2, layer.most_rows, layer.most_rows + 1):
        x = some_rows(count, shape[1])
        wanted = x @ layer.weight.T
        if native():  # its plain product is made in bfloat16, too
            assert error(layer.plain(x).float(), wanted) < 0.01
        else:
            torch.testing.assert_close(layer.plain(x), wanted, rtol=1e-4, atol=1e-5)
        assert error(layer(x), wanted) < 0.01  # bfloat16


def native() -> bool:
    return kernels.native_bfloat16(torch.device("cpu"))


@torch.no_grad()
@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_what_comes_out_is_shaped_and_typed_as_what_goes_in(how: How, dtype: torch.dtype) -> None:
    layer = packed(a_linear(30, 24), how)
    wanted = some_rows(6, 24) @ layer.weight.T
    x = some_rows(6, 24).to(dtype)
    for shape in ((2, 3, 24), (6, 24), (6, 1, 24)):
        out = layer(x.view(shape))
        assert out.dtype == dtype and out.shape == (*shape[:-1], 30)
        assert error(out.float().view(6, 30), wanted) < 0.02
    assert layer(x[0]).shape == (30,) and layer(x[:0]).shape == (0, 30)
    many = x.repeat(40, 1)
    assert layer(many).dtype == dtype


@torch.no_grad()
@pytest.mark.parametrize("how", HOWS)
def test_rows_from_anywhere_in_memory_are_read(how: How) -> None:
    layer = packed(a_linear(64, 64), how)
    buffer = some_rows(1, 64 * 5).bfloat16().flatten()
    for offset in (0, 1, 7, 32):  # kernels that load whole vectors crash at such places
        x = buffer[offset : offset + 128].view(2, 64)
        torch.testing.assert_close(layer(x), layer(x.clone()), rtol=0, atol=0)
    wide = some_rows(2, 128).bfloat16()
    torch.testing.assert_close(layer(wide[:, ::2]), layer(wide[:, ::2].contiguous()), rtol=0, atol=0)


@torch.no_grad()
@pytest.mark.parametrize("how", HOWS)
def test_a_row_does_not_depend_on_its_neighbours(how: How) -> None:
    layer = packed(a_linear(96, 64), how)
    x = some_rows(12, 64)
    alone = torch.cat([layer(row[None]) for row in x])
    torch.testing.assert_close(layer(x), alone, rtol=0.02, atol=1e-3)


@pytest.mark.parametrize("how", HOWS)
def test_the_dtype_follows_and_the_whole_numbers_stay(how: How) -> None:
    layer = packed(a_linear(96, 64), how)
    before = {name: value.clone() for name, value in layer.named_buffers()}
    assert layer.to(torch.bfloat16).weight.dtype == torch.bfloat16
    assert layer.double().weight.dtype == torch.float64
    assert layer.to("cpu") is layer
    for name, value in layer.named_buffers():
        assert value.dtype == before[name].dtype and torch.equal(value, before[name])
    assert not list(layer.parameters())
    other = copy.deepcopy(layer)
    assert torch.equal(other.weight, layer.weight)


@pytest.mark.parametrize("how", HOWS)
def test_another_device_is_refused(how: How) -> None:
    with pytest.raises(ValueError, match="packed for cpu and cannot move to meta: load the model there"):
        packed(a_linear(8, 8), how).to("meta")


@pytest.mark.parametrize("how", HOWS)
def test_it_holds_what_it_promises(how: How) -> None:
    layer = packed(a_linear(1024, 512), how)
    size = sum(value.numel() * value.element_size() for value in layer.buffers())
    assert size / (1024 * 512) < {"int8": 1.01, "int4": 0.626}[how]


@pytest.mark.parametrize("how", HOWS)
def test_weights_that_are_no_numbers_are_refused(how: How) -> None:
    linear = a_linear(8, 8)
    linear.weight.data[3, 3] = torch.nan
    with pytest.raises(ValueError, match="holds NaN or infinite numbers"):
        packed(linear, how)


@torch.no_grad()
@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("fault", ["raises", "lies"])
def test_where_the_kernel_fails_the_plain_product_is_taken_and_told_of(
    how: How, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*given: object) -> Tensor:
        if fault == "raises":
            raise RuntimeError("not available for build")
        return torch.zeros(3, 64, dtype=torch.bfloat16)

    monkeypatch.setattr(kernels, "int8_product", broken)
    monkeypatch.setattr(kernels.Blocks, "product", broken)
    for cached in (kernels._int8_works, kernels._int4_works):
        cached.cache_clear()
    try:
        reason = "not available for build" if fault == "raises" else "computes something else"
        with pytest.warns(UserWarning, match=rf"no packed kernel for {how} on cpu \(.*{reason}\)"):
            layer = packed(a_linear(96, 40), how)
        x = some_rows(3, 40)
        assert layer.most_rows == 0
        assert (
            error(layer(x), x @ layer.weight.T) < 0.01 and error(layer.weight, a_linear(96, 40).weight) < ROUNDED[how]
        )
    finally:
        for cached in (kernels._int8_works, kernels._int4_works):
            cached.cache_clear()


@torch.no_grad()
@pytest.mark.parametrize("how", HOWS)
def test_a_working_kernel_warns_of_nothing(how: How) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        packed(a_linear(64, 64), how)


@torch.no_grad()
def test_4_bits_are_unpacked_from_both_forms_alike() -> None:
    levels = torch.randint(16, (128, 96), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    scales_zeros = torch.stack((torch.ones(3, 128), torch.full((3, 128), 8.0)), dim=-1).bfloat16()  # the levels alone
    for layout in (kernels.Halves(), kernels.int4_layout(torch.device("cpu"), 96)):
        found = layout.unpack(layout.pack(levels), scales_zeros, torch.float32)
        assert torch.equal(found, levels.T.float())
        assert layout.pack(levels).numel() == levels.numel() // 2


@pytest.mark.gpu
@torch.no_grad()
@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("shape", SHAPES)
def test_a_gpu_computes_what_the_cpu_does(how: How, shape: tuple[int, int]) -> None:
    linear = a_linear(*shape)
    here = packed(linear, how)
    there: PackedLinear = packed(copy.deepcopy(linear).cuda(), how)
    assert there.most_rows > 0
    torch.testing.assert_close(there.weight.cpu(), here.weight, rtol=0.01, atol=1e-4)
    for count in (1, 2, 16, there.most_rows + 1):
        x = some_rows(count, shape[1])
        for dtype in (torch.float32, torch.bfloat16, torch.float16):
            assert error(there(x.cuda().to(dtype)).float().cpu(), x @ here.weight.T) < 0.02
    if isinstance(there, Int4Linear):
        assert there.levels.dtype == torch.int32
