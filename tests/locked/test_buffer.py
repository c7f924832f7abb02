# SPDX-License-Identifier: MIT
"""LockedBuffer as an object: bytes of a fixed number that can be read, written and compared, and not given away."""

import copy
import gc
import os
import pickle
import subprocess
import sys
import weakref
from array import array
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import mlockwipe
from mlockwipe import LockedBuffer
from mlockwipe.locked.pool import POOL

SECRET = b"correct horse battery staple"


@pytest.mark.usefixtures("kind")
@pytest.mark.parametrize("size", [0, 1, 16, 17, 2048, 2049, 4096, 4097, 100_000])
def test_a_new_buffer_is_zeros(size: int) -> None:
    buffer = LockedBuffer(size)
    assert len(buffer) == size
    assert bytes(buffer) == bytes(size)


@pytest.mark.parametrize("like", [bytes, bytearray, memoryview, LockedBuffer, partial(array, "b")])
@pytest.mark.parametrize("content", [SECRET, b""])
def test_a_buffer_of_something_has_its_bytes(like: Callable[[bytes], bytes], content: bytes) -> None:
    assert bytes(LockedBuffer(like(content))) == content


def test_a_buffer_of_numbers_has_the_bytes_of_all() -> None:
    assert LockedBuffer(array("H", [1, 2])) == array("H", [1, 2]).tobytes()


def test_text_is_no_secret_yet() -> None:
    with pytest.raises(TypeError, match="bytes-like"):
        LockedBuffer("text")  # type: ignore[arg-type]


def test_a_negative_size_is_an_error() -> None:
    with pytest.raises(ValueError, match="negative"):
        LockedBuffer(-1)


@given(st.data())
def test_it_reads_and_writes_like_a_bytearray(data: st.DataObject) -> None:
    model = bytearray(data.draw(st.binary(max_size=5000), "content"))
    buffer = LockedBuffer(model)
    for _ in range(data.draw(st.integers(0, 5), "writes")):
        start, stop, _ = data.draw(st.slices(len(model)), "part").indices(len(model))
        length = len(model[start:stop])
        content = data.draw(st.binary(min_size=length, max_size=length), "written")
        model[start : start + length] = content
        buffer[start : start + length] = content
    assert buffer == model
    assert bytes(buffer) == model
    assert list(buffer) == list(model)
    for index in range(-len(model), len(model), 97):
        assert buffer[index] == model[index]


def test_a_byte_out_of_range_is_an_error() -> None:
    with pytest.raises(IndexError):
        LockedBuffer(3)[3]


@pytest.mark.parametrize("content", [b"", b"123", b"12345"])
def test_it_has_a_fixed_length(content: bytes) -> None:
    buffer = LockedBuffer(b"abcd")
    with pytest.raises(ValueError, match="different structures"):
        buffer[:] = content
    assert buffer == b"abcd"


def test_a_part_is_no_copy() -> None:
    buffer = LockedBuffer(SECRET)
    part = buffer[8:13]
    assert bytes(part) == b"horse"
    buffer[8:13] = b"zebra"
    assert bytes(part) == b"zebra"
    part[0] = ord("Z")
    assert buffer[8] == ord("Z")


@pytest.mark.parametrize("size", [1, len(SECRET), 5000])
def test_what_memoryview_makes_of_it_does_not_crash(size: int) -> None:
    """An array of ctypes in its place does: see buffer.py."""
    content = SECRET.ljust(size)[:size]
    buffer, other, view = LockedBuffer(content), LockedBuffer(content), memoryview(bytearray(size))
    both = sys.version_info >= (3, 12)
    assert (memoryview(content) == buffer) is both
    assert (memoryview(other) == buffer) is both
    for target in (view, memoryview(other), other[:]):
        with suppress(ValueError, NotImplementedError):
            target[:] = buffer
    assert memoryview(buffer).cast("B") == content
    assert memoryview(buffer).nbytes == size
    assert memoryview(buffer).tobytes() == content
    assert buffer[:] == content
    assert other == content


def test_one_is_assigned_to_a_part_of_another() -> None:
    buffer = LockedBuffer(20)
    buffer[5:10] = LockedBuffer(b"horse")
    buffer[10:15] = LockedBuffer(b"zebra")[:]
    assert buffer == b"\0" * 5 + b"horsezebra" + b"\0" * 5


def test_a_slice_has_no_step() -> None:
    buffer = LockedBuffer(SECRET)
    with pytest.raises(ValueError, match="step"):
        buffer[::2]
    with pytest.raises(ValueError, match="step"):
        buffer[::-1] = SECRET


@given(st.binary(max_size=100), st.binary(max_size=100))
def test_it_is_equal_to_the_same_bytes(one: bytes, other: bytes) -> None:
    buffer = LockedBuffer(one)
    for like in (bytes, bytearray, memoryview, LockedBuffer):
        assert buffer == like(one)
        assert bytes(one) == buffer
        assert (buffer == like(other)) is (one == other)
        assert (buffer != like(other)) is (one != other)


@pytest.mark.parametrize("other", ["text", 5, None, [1, 2]])
def test_it_is_not_equal_to_what_is_no_bytes(other: object) -> None:
    assert LockedBuffer(b"text") != other


def test_the_comparison_is_the_one_that_takes_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mlockwipe.locked.buffer.compare_digest", lambda one, other: bytes(one) < other)
    assert LockedBuffer(b"a") == b"b"
    assert LockedBuffer(b"b") != b"b"


def test_nothing_of_the_content_is_shown() -> None:
    buffer = LockedBuffer(SECRET)
    for text in (repr(buffer), str(buffer), f"{buffer}", f"{buffer!r:>80}", "%s" % buffer):  # noqa: UP031
        assert "horse" not in text
        assert f"{len(SECRET)} bytes" in text


@pytest.mark.parametrize(
    "give_away",
    [
        copy.copy,
        copy.deepcopy,
        *(lambda buffer, protocol=protocol: pickle.dumps(buffer, protocol) for protocol in range(6)),
        lambda buffer: buffer.__reduce__(),
    ],
)
def test_it_is_not_copied_or_pickled(give_away: Callable[[LockedBuffer], object]) -> None:
    with pytest.raises(TypeError, match="can't be pickled or copied"):
        give_away(LockedBuffer(SECRET))


def test_it_has_no_hash() -> None:
    with pytest.raises(TypeError, match="unhashable"):
        hash(LockedBuffer(SECRET))


def test_cleared_it_can_be_used_again() -> None:
    buffer = LockedBuffer(SECRET)
    buffer.clear()
    assert buffer == bytes(len(SECRET))
    buffer[:7] = b"another"
    assert bytes(buffer[:7]) == b"another"


@pytest.mark.usefixtures("kind")
@pytest.mark.parametrize("size", [len(SECRET), 5000])
def test_released_it_is_zeros_in_every_view(size: int) -> None:
    buffer = LockedBuffer(SECRET.ljust(size))
    view, part = memoryview(buffer), buffer[8:13]
    with buffer:
        assert bytes(part) == b"horse"
    assert bytes(view) == bytes(size)
    assert bytes(part) == bytes(5)


@pytest.mark.parametrize(
    "use",
    [
        lambda buffer: buffer[0],
        lambda buffer: buffer[:],
        lambda buffer: buffer.__setitem__(0, 1),
        lambda buffer: buffer.clear(),
        lambda buffer: buffer == b"x",
        lambda buffer: LockedBuffer(bytes(len(SECRET))) == buffer,
        lambda buffer: LockedBuffer(buffer),
        lambda buffer: LockedBuffer(len(buffer)).__setitem__(slice(None), buffer),
        lambda buffer: buffer.__enter__(),
        pytest.param(
            bytes, marks=pytest.mark.skipif(sys.version_info < (3, 12), reason="Python 3.11 can't refuse: PEP 688")
        ),
    ],
)
def test_released_it_refuses_to_be_used(use: Callable[[LockedBuffer], object]) -> None:
    buffer = LockedBuffer(SECRET)
    assert not buffer.released
    buffer.release()
    assert buffer.released
    with pytest.raises(ValueError, match="has been released"):
        use(buffer)
    buffer.release()
    assert repr(buffer) == f"<LockedBuffer of {len(SECRET)} bytes, released>"


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="from Python 3.12 on it is refused: PEP 688")
def test_released_its_buffer_is_zeros_on_older_pythons() -> None:
    buffer = LockedBuffer(SECRET)
    buffer.release()
    assert bytes(buffer) == bytes(len(SECRET))


def test_an_error_in_the_block_releases_too() -> None:
    view = None
    with pytest.raises(RuntimeError), LockedBuffer(SECRET) as buffer:
        view = buffer[:]
        raise RuntimeError
    assert view is not None
    assert not any(view)


@pytest.mark.parametrize("size", [16, 5000])
def test_the_room_is_not_given_to_another_while_a_view_is_left(size: int) -> None:
    buffer = LockedBuffer(size)
    view = buffer[:]
    buffer.release()
    del buffer
    others = [LockedBuffer(b"x" * size) for _ in range(600)]
    assert not any(view)
    view[0] = 1
    assert all(other == b"x" * size for other in others)


def test_what_was_written_after_the_release_goes_too() -> None:
    buffer = LockedBuffer(SECRET)
    keep = LockedBuffer(1)  # the page is not given back
    page, offset = buffer._slot.pages, buffer._slot.offset
    view = buffer[:]
    buffer.release()
    view[:] = SECRET
    assert page.memory[offset : offset + len(SECRET)] == SECRET
    view.release()
    del buffer
    assert page.memory[offset : offset + len(SECRET)] == bytes(len(SECRET))
    assert not any(keep)


def test_what_belongs_to_another_process_is_not_cleared() -> None:
    """As in a child that could not map over its parent's page."""
    buffer = LockedBuffer(SECRET)
    pages = buffer._slot.pages
    pages.lost = "it belongs to the process that forked this one"
    buffer.release()
    del buffer
    assert SECRET in pages.memory[4096:-4096]
    pages.wipe()
    POOL.lose_in_child()


def test_a_buffer_in_a_cycle_is_released_by_the_collector() -> None:
    class Holder:
        def __init__(self) -> None:
            self.me, self.buffer = self, LockedBuffer(SECRET)

    holder = Holder()
    view = memoryview(holder.buffer)
    gone = weakref.ref(holder.buffer)
    pages = holder.buffer._slot.pages
    del view, holder
    gc.collect()
    assert gone() is None
    assert SECRET not in pages.memory[4096:-4096]


@pytest.mark.usefixtures("kind")
def test_room_is_used_again_and_again() -> None:
    for _ in range(3000):
        LockedBuffer(SECRET)
        LockedBuffer(5000)
    assert len(POOL.in_use) <= 1


def test_a_subclass_is_of_its_own_kind() -> None:
    class Key(LockedBuffer):
        pass

    key = Key(SECRET)
    assert isinstance(key, Key)
    assert type(key).__name__ == "Key"
    assert key == LockedBuffer(SECRET)


def test_all_is_read_from_a_descriptor_until_its_end(tmp_path: Path) -> None:
    for size in (0, 1, 4095, 4096, 4097, 20_000, 65536):
        content = os.urandom(size)
        (tmp_path / "key").write_bytes(content)
        with open(tmp_path / "key", "rb", buffering=0) as file:
            assert LockedBuffer.from_fd(file.fileno()) == content
            file.seek(0)
            assert LockedBuffer.from_fd(file.fileno(), limit=max(size, 1)) == content


def test_a_pipe_is_read_in_pieces() -> None:
    writer = subprocess.Popen(
        [sys.executable, "-uc", "import os\nfor _ in range(9): os.write(1, b'piece' * 100)"], stdout=subprocess.PIPE
    )
    with writer:
        assert writer.stdout is not None
        assert LockedBuffer.from_fd(writer.stdout.fileno()) == b"piece" * 900


@pytest.mark.parametrize("limit", [0, 1, 4095, 4096, 9000])
def test_more_than_the_limit_is_an_error(tmp_path: Path, limit: int) -> None:
    (tmp_path / "key").write_bytes(b"x" * (limit + 1))
    with (
        open(tmp_path / "key", "rb", buffering=0) as file,
        pytest.raises(ValueError, match=f"more than {limit} bytes"),
    ):
        LockedBuffer.from_fd(file.fileno(), limit=limit)


def test_what_was_read_before_an_error_is_cleared(tmp_path: Path) -> None:
    """The error refers to the frame, and the frame to what was read."""
    (tmp_path / "key").write_bytes(b"x" * 10)
    with open(tmp_path / "key", "rb", buffering=0) as file, pytest.raises(ValueError) as raised:
        LockedBuffer.from_fd(file.fileno(), limit=9)
    frames = [frame.frame.f_locals for frame in raised.traceback]
    assert [frame["room"].released for frame in frames if "room" in frame] == [True]


def test_a_descriptor_that_can_not_be_read_is_an_error() -> None:
    with pytest.raises(OSError, match="Bad file descriptor"):
        LockedBuffer.from_fd(999)


def test_the_package_loads_the_library_for_who_asks() -> None:
    program = "import sys, mlockwipe; print('mlockwipe.locked' in sys.modules, 'hmac' in sys.modules); "
    program += "from mlockwipe import LockedBuffer, LockLimitReached; print('mlockwipe.locked' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "False False\nTrue\n"
    with pytest.raises(AttributeError, match="no attribute 'LockedBufer'"):
        mlockwipe.LockedBufer  # type: ignore[attr-defined]  # noqa: B018
