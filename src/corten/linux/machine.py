"""A tiny assembler for static Linux programs on x86-64 and arm64: the same calls emit either machine's code.

Owns encodings and the ELF file around them; what the programs do is their authors' (engine/hello.py, runtime/reaper.py).
Sources: Intel SDM vol. 2; Arm ARM C6.2; elf(5); syscall(2) for the calling conventions.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

TEXT_BASE, DATA_BASE = 0x400000, 0x600000
_ELF_HEADER, _PROGRAM_HEADER = 64, 56
_HEADERS = _ELF_HEADER + 3 * _PROGRAM_HEADER
# Registers by role: A0.. arguments of a system call, S0.. kept across it.
ARGUMENTS = ("A0", "A1", "A2", "A3", "A4", "A5")
KEPT = ("S0", "S1", "S2", "S3", "S4")


class Assembler:
    """Base of both machines. Branch targets are names; text is placed behind the code; `reserve` is zeroed memory."""

    machine = 0
    syscalls: dict[str, int]
    conditions: dict[str, int]

    def __init__(self) -> None:
        self.code = bytearray()
        self._labels: dict[str, int] = {}
        self._fixups: list[tuple[int, str, Callable[[int, int], None]]] = []
        self._strings: list[tuple[int, bytes, str]] = []
        self._reserved = 0
        self._counter = 0

    def label(self, name: str) -> None:
        self._labels[name] = len(self.code)

    def fresh(self, stem: str) -> str:
        self._counter += 1
        return f"{stem}{self._counter}"

    def reserve(self, size: int) -> int:
        """Address of zeroed, writable memory, aligned to 16 bytes."""
        address = DATA_BASE + self._reserved
        self._reserved += size + 15 & ~15
        return address

    def call(self, name: str, *arguments: int | str) -> None:
        """A system call; each argument is a constant or a kept register. The result is moved with `result()`."""
        for register, value in zip(ARGUMENTS, arguments, strict=False):
            if isinstance(value, str):
                self.move(register, value)
            else:
                self.constant(register, value)
        self.system_call(self.syscalls[name])

    def text(self, register: str, data: bytes) -> None:
        """Load the address of constant data."""
        self._strings.append((len(self.code), data, register))
        self.constant(register, 0)

    def write(self, data: bytes) -> None:
        self.text("A1", data)
        self.constant("A0", 1)
        self.constant("A2", len(data))
        self.system_call(self.syscalls["write"])

    def finish(self) -> bytes:
        """The ELF file."""
        for at, name, patch in self._fixups:
            patch(at, self._labels[name])
        for at, data, register in self._strings:
            address = TEXT_BASE + _HEADERS + len(self.code)
            self.code += data
            self._patch_constant(at, register, address)
        size = _HEADERS + len(self.code)
        header = b"\x7fELF\x02\x01\x01" + bytes(9)
        header += struct.pack("<HHIQQQIHHHHHH", 2, self.machine, 1, TEXT_BASE + _HEADERS, _ELF_HEADER, 0, 0,
                              _ELF_HEADER, _PROGRAM_HEADER, 3, 0, 0, 0)  # fmt: skip
        segments = struct.pack("<IIQQQQQQ", 1, 5, 0, TEXT_BASE, TEXT_BASE, size, size, 0x10000)  # read, execute
        segments += struct.pack("<IIQQQQQQ", 1, 6, 0, DATA_BASE, DATA_BASE, 0, max(self._reserved, 16), 0x10000)  # read, write
        segments += struct.pack("<IIQQQQQQ", 0x6474E551, 6, 0, 0, 0, 0, 0, 16)  # PT_GNU_STACK: not executable
        return header + segments + bytes(self.code)

    def _patch_constant(self, at: int, register: str, value: int) -> None:
        tail = self.code[at:]
        del self.code[at:]
        self.constant(register, value)
        length = len(self.code) - at
        self.code += tail[length:]

    # --- what each machine encodes
    def constant(self, register: str, value: int) -> None:
        """Load a signed 32-bit constant; always the same length."""
        raise NotImplementedError

    def move(self, target: str, source: str) -> None:
        raise NotImplementedError

    def system_call(self, number: int) -> None:
        raise NotImplementedError

    def result(self, target: str) -> None:
        """Move a system call's result into a kept register."""
        raise NotImplementedError

    def stack(self, target: str) -> None:
        raise NotImplementedError

    def add(self, target: str, source: str) -> None:
        raise NotImplementedError

    def add_constant(self, target: str, value: int) -> None:
        """0 <= value < 4096."""
        raise NotImplementedError

    def subtract(self, target: str, source: str) -> None:
        raise NotImplementedError

    def shift(self, target: str, left: int) -> None:
        """Shift left by a positive, right (logically) by a negative number of bits."""
        raise NotImplementedError

    def and_constant(self, target: str, bits: int) -> None:
        """Keep the lowest `bits` bits."""
        raise NotImplementedError

    def load(self, target: str, base: str, offset: int, width: int) -> None:
        """`width` bytes (1, 2, 4, 8), zero-extended."""
        raise NotImplementedError

    def store_word(self, base: str, source: str) -> None:
        """Four bytes at the address in `base`."""
        raise NotImplementedError

    def branch(self, condition: str, first: str, second: str | int, target: str) -> None:
        """To `target` if `first` condition `second` (eq, ne, lt, le, gt, ge; signed); an integer is 0 <= n < 4096."""
        raise NotImplementedError

    def jump(self, target: str) -> None:
        raise NotImplementedError


class X86(Assembler):
    machine = 62
    syscalls = {
        "read": 0, "write": 1, "rt_sigprocmask": 14, "ioctl": 16, "getpid": 39, "clone": 56, "execve": 59, "exit_group": 231,
        "wait4": 61, "kill": 62, "setpgid": 109, "rt_sigtimedwait": 128, "getdents64": 217, "openat": 257, "readlinkat": 267,
    }  # fmt: skip
    conditions = {"eq": 0x84, "ne": 0x85, "lt": 0x8C, "ge": 0x8D, "le": 0x8E, "gt": 0x8F}
    _registers = {"A0": 7, "A1": 6, "A2": 2, "A3": 10, "A4": 8, "A5": 9, "S0": 3, "S1": 5, "S2": 12, "S3": 13, "S4": 14, "RET": 0}

    def _two(self, opcode: int, reg: int, rm: int) -> None:
        self.code += bytes([0x48 | (reg >> 3) << 2 | rm >> 3, opcode, 0xC0 | (reg & 7) << 3 | rm & 7])

    def _memory(self, opcode: bytes, reg: int, base: int, offset: int, *, wide: bool) -> None:
        rex = 0x40 | (0x08 if wide else 0) | (reg >> 3) << 2 | base >> 3
        self.code += bytes([rex]) + opcode + bytes([0x80 | (reg & 7) << 3 | base & 7])
        if base & 7 == 4:
            self.code.append(0x24)
        self.code += struct.pack("<i", offset)

    def constant(self, register: str, value: int) -> None:
        number = self._registers[register]
        self.code += bytes([0x48 | number >> 3, 0xC7, 0xC0 | number & 7]) + struct.pack("<i", value)

    def move(self, target: str, source: str) -> None:
        self._two(0x89, self._registers[source], self._registers[target])

    def system_call(self, number: int) -> None:
        self.constant("RET", number)
        self.code += b"\x0f\x05"

    def result(self, target: str) -> None:
        self.move(target, "RET")

    def stack(self, target: str) -> None:
        self._two(0x89, 4, self._registers[target])

    def add(self, target: str, source: str) -> None:
        self._two(0x01, self._registers[source], self._registers[target])

    def add_constant(self, target: str, value: int) -> None:
        self._two(0x81, 0, self._registers[target])
        self.code += struct.pack("<i", value)

    def subtract(self, target: str, source: str) -> None:
        self._two(0x29, self._registers[source], self._registers[target])

    def shift(self, target: str, left: int) -> None:
        self._two(0xC1, 4 if left > 0 else 5, self._registers[target])
        self.code.append(abs(left))

    def and_constant(self, target: str, bits: int) -> None:
        self._two(0x81, 4, self._registers[target])
        self.code += struct.pack("<i", (1 << bits) - 1)

    def load(self, target: str, base: str, offset: int, width: int) -> None:
        opcode = {1: b"\x0f\xb6", 2: b"\x0f\xb7", 4: b"\x8b", 8: b"\x8b"}[width]
        self._memory(opcode, self._registers[target], self._registers[base], offset, wide=width != 4)

    def store_word(self, base: str, source: str) -> None:
        self._memory(b"\x89", self._registers[source], self._registers[base], 0, wide=False)

    def branch(self, condition: str, first: str, second: str | int, target: str) -> None:
        if isinstance(second, int):
            self._two(0x81, 7, self._registers[first])
            self.code += struct.pack("<i", second)
        else:
            self._two(0x39, self._registers[second], self._registers[first])
        self.code += bytes([0x0F, self.conditions[condition]])
        self._relative(target)

    def jump(self, target: str) -> None:
        self.code.append(0xE9)
        self._relative(target)

    def _relative(self, target: str) -> None:
        self._fixups.append((len(self.code), target, lambda at, to: struct.pack_into("<i", self.code, at, to - at - 4)))
        self.code += bytes(4)


class Arm64(Assembler):
    machine = 183
    syscalls = {
        "read": 63, "write": 64, "rt_sigprocmask": 135, "ioctl": 29, "getpid": 172, "clone": 220, "execve": 221, "exit_group": 94,
        "wait4": 260, "kill": 129, "setpgid": 154, "rt_sigtimedwait": 137, "getdents64": 61, "openat": 56, "readlinkat": 78,
    }  # fmt: skip
    conditions = {"eq": 0, "ne": 1, "ge": 10, "lt": 11, "gt": 12, "le": 13}
    _registers = {"A0": 0, "A1": 1, "A2": 2, "A3": 3, "A4": 4, "A5": 5, "NR": 8, "S0": 19, "S1": 20, "S2": 21, "S3": 22, "S4": 23}

    def _emit(self, word: int) -> None:
        self.code += struct.pack("<I", word)

    def constant(self, register: str, value: int) -> None:
        number = self._registers[register]
        low, high = value & 0xFFFF, value >> 16 & 0xFFFF
        if value >= 0:
            self._emit(0xD2800000 | low << 5 | number)  # movz
        else:
            self._emit(0x92800000 | (~low & 0xFFFF) << 5 | number)  # movn
        self._emit(0xF2A00000 | high << 5 | number)  # movk, lsl 16

    def move(self, target: str, source: str) -> None:
        self._emit(0xAA0003E0 | self._registers[source] << 16 | self._registers[target])

    def system_call(self, number: int) -> None:
        self.constant("NR", number)
        self._emit(0xD4000001)

    def result(self, target: str) -> None:
        self.move(target, "A0")

    def stack(self, target: str) -> None:
        self._emit(0x910003E0 | self._registers[target])

    def add(self, target: str, source: str) -> None:
        number = self._registers[target]
        self._emit(0x8B000000 | self._registers[source] << 16 | number << 5 | number)

    def add_constant(self, target: str, value: int) -> None:
        number = self._registers[target]
        self._emit(0x91000000 | value << 10 | number << 5 | number)

    def subtract(self, target: str, source: str) -> None:
        number = self._registers[target]
        self._emit(0xCB000000 | self._registers[source] << 16 | number << 5 | number)

    def shift(self, target: str, left: int) -> None:
        number = self._registers[target]
        rotate, last = (-left % 64, 63 - left) if left > 0 else (-left, 63)
        self._emit(0xD3400000 | rotate << 16 | last << 10 | number << 5 | number)  # ubfm

    def and_constant(self, target: str, bits: int) -> None:
        number = self._registers[target]
        self._emit(0xD3400000 | (bits - 1) << 10 | number << 5 | number)  # ubfx from bit 0

    def load(self, target: str, base: str, offset: int, width: int) -> None:
        size = {1: 0, 2: 1, 4: 2, 8: 3}[width]
        if offset % width:
            raise ValueError(f"offset {offset} is not a multiple of {width}")
        self._emit(0x39400000 | size << 30 | (offset // width) << 10 | self._registers[base] << 5 | self._registers[target])

    def store_word(self, base: str, source: str) -> None:
        self._emit(0xB9000000 | self._registers[base] << 5 | self._registers[source])

    def branch(self, condition: str, first: str, second: str | int, target: str) -> None:
        if isinstance(second, int):
            self._emit(0xF100001F | second << 10 | self._registers[first] << 5)
        else:
            self._emit(0xEB00001F | self._registers[second] << 16 | self._registers[first] << 5)
        self._fixups.append((len(self.code), target, self._patch_conditional))
        self._emit(0x54000000 | self.conditions[condition])

    def _patch_conditional(self, at: int, to: int) -> None:
        word = struct.unpack_from("<I", self.code, at)[0]
        struct.pack_into("<I", self.code, at, word | ((to - at) // 4 & 0x7FFFF) << 5)

    def jump(self, target: str) -> None:
        self._fixups.append((len(self.code), target, self._patch_jump))
        self._emit(0x14000000)

    def _patch_jump(self, at: int, to: int) -> None:
        struct.pack_into("<I", self.code, at, 0x14000000 | (to - at) // 4 & 0x3FFFFFF)


ASSEMBLERS: dict[str, type[Assembler]] = {"amd64": X86, "arm64": Arm64}
