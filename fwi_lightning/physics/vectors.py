"""Two things numba cannot say: a loop over whole vector registers, and a thread's treatment of tiny numbers.

numba turns plain loops into vector instructions, but it loads every neighbour of a cell from memory, and as wide
as LLVM dares. The kernel here works on several rows at once, so that a row serves as the neighbour of the others
while it is in a register, and makes the neighbours along a row by shifting registers: 1.6 times as fast. It is
written with llvmlite, which numba is built on, and runs on any machine: LLVM splits registers that are too wide.
"""

from __future__ import annotations

import platform
from collections.abc import Sequence
from typing import Any

from llvmlite import binding, ir  # type: ignore[import-untyped]
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

ROWS = 4
"""Rows that `advance_rows` computes at once. Fewer load more, more do not fit the registers."""

REGISTER = 64 if binding.get_host_cpu_features().get("avx512f") else 32
"""Bytes of a register: 64 with AVX-512, 32 with AVX2 (elsewhere two registers of 16)."""

_INT32, _INT64 = ir.IntType(32), ir.IntType(64)


class _Vector:
    """One register of float32 or float64 numbers, with the arithmetic that the kernel's formula needs."""

    def __init__(self, builder: Any, value: Any) -> None:
        self.builder, self.value = builder, value

    def _combine(self, operation: str, other: _Vector | float) -> _Vector:
        if not isinstance(other, _Vector):
            kind = self.value.type
            other = _Vector(self.builder, ir.Constant(kind, [float(other)] * kind.count))
        # "contract" lets LLVM join a product and a sum into one instruction (FMA); nothing else is reordered.
        result = getattr(self.builder, operation)(self.value, other.value, flags=("contract",))
        return _Vector(self.builder, result)

    def __add__(self, other: _Vector | float) -> _Vector:
        return self._combine("fadd", other)

    def __sub__(self, other: _Vector | float) -> _Vector:
        return self._combine("fsub", other)

    def __mul__(self, other: _Vector | float) -> _Vector:
        return self._combine("fmul", other)

    def followed_by(self, following: _Vector, shift: int) -> _Vector:
        """The numbers `shift` places to the right of these, of which the last come from the next register."""
        lanes = self.value.type.count
        picks = ir.Constant(ir.VectorType(_INT32, lanes), [shift + lane for lane in range(lanes)])
        return _Vector(self.builder, self.builder.shuffle_vector(self.value, following.value, picks))


class _Array:
    """A flat array of float32 or float64 numbers, read and written a register at a time."""

    def __init__(self, builder: Any, data: Any) -> None:
        self.builder, self.data = builder, data
        number = data.type.pointee
        self.size = 4 if isinstance(number, ir.FloatType) else 8
        self.vector = ir.VectorType(number, REGISTER // self.size)

    def _at(self, offset: Any) -> Any:
        return self.builder.bitcast(self.builder.gep(self.data, [offset]), self.vector.as_pointer())

    def load(self, offset: Any) -> _Vector:
        return _Vector(self.builder, self.builder.load(self._at(offset), align=self.size))

    def store(self, vector: _Vector, offset: Any) -> None:
        self.builder.store(vector.value, self._at(offset), align=self.size)


@intrinsic
def advance_rows(
    typing_context: Any,
    now: Any,
    old: Any,
    alpha: Any,
    keep: Any,
    at: Any,
    stride: Any,
    alpha_at: Any,
    keep_at: Any,
    count: Any,
    laplacian: Any,
    image: Any,
) -> Any:
    """One step along `ROWS` neighbouring rows; the field to come takes the place of the old one.

    It is the step of `fwi_lightning.physics.scheme`, sorted so that it costs least and rounds least:
    p_next = p + (1 - kappa) (p - p_previous) + alpha/12 (16 near - far - 60 p).

    On the way it does one thing more, which the two last arguments choose (None or an array like the fields; what is
    not asked for is not compiled either). The difference Laplacian is that of the step, 16 near - far - 60 p:

        laplacian  image
        None       None   nothing
        array      None   laplacian = difference Laplacian
        None       array  image += difference Laplacian ^ 2
        array      array  image += p_next * laplacian

    Args:
        typing_context: Given by numba.
        now: The present field, flat.
        old: The field a step back, flat; overwritten.
        alpha: Flat table of alpha / 12.
        keep: Flat table of 1 - kappa.
        at: Offset of the first cell in the fields.
        stride: From a row to the next in the fields. 2 rows above and 2 below are read.
        alpha_at: Offset of the first cell in alpha, one for each row.
        keep_at: Offset of the first cell in keep, one for each row.
        count: Cells of each row: a multiple of 16, at least 16. A register more is read on either side.
        laplacian: None or a flat array.
        image: None or a flat array.

    Returns:
        Nothing.
    """

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        def array(k: int) -> _Array | None:
            if isinstance(signature.args[k], types.NoneType):
                return None
            return _Array(builder, context.make_array(signature.args[k])(context, builder, arguments[k]).data)

        first, row_stride, alpha_rows, keep_rows, cells = arguments[4:9]
        starts = [builder.add(first, builder.mul(row_stride, _INT64(row))) for row in range(-2, ROWS + 2)]
        _emit_loop(
            builder,
            [array(k) for k in (0, 1, 2, 3, 9, 10)],
            starts,
            cgutils.unpack_tuple(builder, alpha_rows, ROWS),
            cgutils.unpack_tuple(builder, keep_rows, ROWS),
            cells,
        )
        return context.get_dummy_value()

    return types.none(now, old, alpha, keep, at, stride, alpha_at, keep_at, count, laplacian, image), codegen


def _emit_loop(
    builder: Any,
    arrays: Sequence[Any],
    starts: Sequence[Any],
    alpha_at: Sequence[Any],
    keep_at: Sequence[Any],
    count: Any,
) -> None:
    """Walk along the rows, a register of each at a time; `starts` begins two rows above the first.

    Of every row that is computed, the registers before, at and after the present place are at hand: from step to
    step each takes the place of the one before it, and only the last is loaded.
    """
    now, old, alpha, keep, laplacian, image = arrays
    lanes = now.vector.count
    before = builder.block
    loop, after = builder.append_basic_block("columns"), builder.append_basic_block("columns.done")
    middle = starts[2:-2]
    previous = [now.load(builder.sub(start, _INT64(lanes))).value for start in middle]
    present = [now.load(start).value for start in middle]
    builder.branch(loop)

    builder.position_at_end(loop)
    column = _carried(builder, _INT64, before, _INT64(0))
    left = [_carried(builder, now.vector, before, value) for value in previous]
    here = [_carried(builder, now.vector, before, value) for value in present]
    right = [now.load(builder.add(builder.add(start, column), _INT64(lanes))) for start in middle]
    above = [now.load(builder.add(start, column)) for start in starts[:2]]
    below = [now.load(builder.add(start, column)) for start in starts[-2:]]
    rows = [*above, *(_Vector(builder, value) for value in here), *below]
    for k in range(ROWS):
        place = builder.add(middle[k], column)
        curvature = _laplacian(rows[k : k + 5], _Vector(builder, left[k]), right[k])
        centre, factor = rows[k + 2], alpha.load(builder.add(alpha_at[k], column))
        kept = keep.load(builder.add(keep_at[k], column)) * (centre - old.load(place))
        following = centre + kept + factor * curvature
        old.store(following, place)
        if image is None and laplacian is not None:
            laplacian.store(curvature, place)
        elif image is not None:
            product = curvature * curvature if laplacian is None else following * laplacian.load(place)
            image.store(image.load(place) + product, place)
    next_column = builder.add(column, _INT64(lanes))
    column.add_incoming(next_column, loop)
    for k in range(ROWS):
        left[k].add_incoming(here[k], loop)
        here[k].add_incoming(right[k].value, loop)
    builder.cbranch(builder.icmp_unsigned("<", next_column, count), loop, after)
    builder.position_at_end(after)


def _carried(builder: Any, kind: Any, before: Any, value: Any) -> Any:
    """A value that the loop hands from one round to the next; `value` in the first."""
    carried = builder.phi(kind)
    carried.add_incoming(value, before)
    return carried


def _laplacian(rows: Sequence[_Vector], left: _Vector, right: _Vector) -> _Vector:
    """The differences of the scheme. This is where the time goes.

    Args:
        rows: The field in five rows, two above to two below.
        left: The field in the middle row, one register before.
        right: The field in the middle row, one register after.

    Returns:
        16 near - far - 60 p in the middle row.
    """
    top, up, centre, down, bottom = rows
    lanes = centre.value.type.count
    near = (up + down) + (left.followed_by(centre, lanes - 1) + centre.followed_by(right, 1))
    far = (top + bottom) + (left.followed_by(centre, lanes - 2) + centre.followed_by(right, 2))
    return near * 16 - far - centre * 60


_IS_X86 = platform.machine() in ("x86_64", "AMD64")

FLUSH_TO_ZERO = 0x8040 if _IS_X86 else 0
"""Bits of the control register that make zeros of denormal numbers, results and operands."""


@intrinsic
def get_float_control(typing_context: Any) -> Any:
    """The floating-point control register of this thread (MXCSR); 0 on machines other than x86.

    Ahead of a wave the field fades through the denormal numbers (below 1e-38), on which an x86 takes many times as
    long; other machines do not mind them.
    """

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        slot = cgutils.alloca_once_value(builder, _INT32(0))
        if _IS_X86:
            _call_with_address(builder, "llvm.x86.sse.stmxcsr", slot)
        return builder.load(slot)

    return types.uint32(), codegen


@intrinsic
def set_float_control(typing_context: Any, value: Any) -> Any:
    """Set the floating-point control register of this thread; nothing on machines other than x86."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        if _IS_X86:
            slot = cgutils.alloca_once_value(builder, arguments[0])
            _call_with_address(builder, "llvm.x86.sse.ldmxcsr", slot)
        return context.get_dummy_value()

    return types.none(types.uint32), codegen


def _call_with_address(builder: Any, name: str, slot: Any) -> None:
    address = ir.IntType(8).as_pointer()
    function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(ir.VoidType(), [address]), name)
    builder.call(function, [builder.bitcast(slot, address)])


@intrinsic
def take_next(typing_context: Any, counter: Any) -> Any:
    """The number in the one element of an array, which goes up by one: no two threads get the same.

    Args:
        typing_context: Given by numba.
        counter: Eight bytes: an int64, or a record of one int64.

    Returns:
        The number, int64.
    """

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        return builder.atomic_rmw("add", builder.bitcast(array.data, _INT64.as_pointer()), _INT64(1), "monotonic")

    return types.int64(counter), codegen
