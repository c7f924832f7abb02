# SPDX-License-Identifier: MIT
"""An interpreter of seccomp's BPF programs: the verdict of a filter on a call, without making it."""

import struct

_INSTRUCTION = struct.Struct("=HBBI")  # struct sock_filter: code, jt, jf, k
_DATA = struct.Struct("=iIQ6Q")  # struct seccomp_data: nr, arch, instruction_pointer, args


def verdict(program: bytes, arch: int, number: int, arguments: tuple[int, ...]) -> int:
    """What the filter returns. ValueError for an instruction that libseccomp does not use."""
    data = _DATA.pack(number, arch, 0, *arguments)
    instructions: list[tuple[int, int, int, int]] = list(_INSTRUCTION.iter_unpack(program))
    at = accumulator = 0
    while True:
        code, true, false, k = instructions[at]
        at += 1
        match code:
            case 0x20:
                accumulator = int.from_bytes(data[k : k + 4], "little")
            case 0x54:
                accumulator &= k
            case 0x05:
                at += k
            case 0x15:
                at += true if accumulator == k else false
            case 0x25:
                at += true if accumulator > k else false
            case 0x35:
                at += true if accumulator >= k else false
            case 0x45:
                at += true if accumulator & k else false
            case 0x06:
                return k
            case _:
                raise ValueError(f"BPF instruction {code:#x}")
