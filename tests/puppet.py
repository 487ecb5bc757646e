"""A program for the local VM that does through CPI whatever its script says, with every signature that it was handed.

It signs with a key of its own, too (`own_key`). The script is the data of the first account of its instruction, so
whoever writes that account decides, as late as they like, what a signed transaction does.

Nothing here compiles for Solana, so the program is assembled by hand, for version 0 of its machine.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from solders.pubkey import Pubkey

if TYPE_CHECKING:
    from collections.abc import Sequence

    from solders.instruction import Instruction

__all__ = ["own_key", "program", "script"]

HEAP = 0x3_0000_0000
INSTRUCTION = HEAP + 0x4000
METAS = HEAP + 0x5000
SEEDS = HEAP + 0x7000
"""Where the program builds its account infos, an instruction, the account metas of that, and the seeds of its key."""

INFO = 56
"""Bytes of a SolAccountInfo: pointers to key and lamports, length of the data, pointers to data and owner, rent epoch,
and whether it signs, is writable, is executable."""

GROWTH = 10_240
"""The room that the loader leaves behind each account's data."""

ELF_HEADER = 64

CALL = 0x85
JUMPS = {"ja": 0x05, "jeq": 0x15, "jne": 0x55, "jeq_reg": 0x1D}
OPERATIONS = {
    "load": 0x79,
    "load_byte": 0x71,
    "store": 0x7B,
    "store_byte": 0x73,
    "mov": 0xB7,
    "mov_reg": 0xBF,
    "add": 0x07,
    "add_reg": 0x0F,
    "mul": 0x27,
    "and": 0x57,
    "exit": 0x95,
}


def own_key(program_id: Pubkey) -> Pubkey:
    """Return the key that the program at `program_id` signs with."""
    return Pubkey.find_program_address([], program_id)[0]


def script(program_id: Pubkey, instructions: Sequence[Instruction], accounts: Sequence[Pubkey]) -> bytes:
    """Return the script of `instructions` for the program at `program_id`, called with `accounts`, the script first."""
    content = struct.pack("<2Q", len(instructions), Pubkey.find_program_address([], program_id)[1])
    for each in instructions:
        content += struct.pack("<2Q", accounts.index(each.program_id), len(each.accounts))
        for meta in each.accounts:
            content += struct.pack("<2Q", accounts.index(meta.pubkey), meta.is_writable | meta.is_signer << 8)
        data = bytes(each.data)
        content += struct.pack("<Q", len(data)) + data + bytes(-len(data) % 8)
    return content


# Each line is (operation, destination register, source register, offset or label, number).
SOURCE = [
    # Walk the accounts as the loader lays them out, r6, and write an info for each, r8; r9 is their count.
    ("load", 9, 1, 0, 0),
    ("mov_reg", 6, 1, 0, 0),
    ("add", 6, 0, 0, 8),
    ("address", 8, 0, 0, HEAP),
    ("mov_reg", 7, 9, 0, 0),
    "account",
    ("jeq", 7, 0, "script", 0),
    ("load_byte", 2, 6, 0, 0),
    ("jeq", 2, 0, "first seen", 0xFF),
    ("mul", 2, 0, 0, INFO),
    ("address", 3, 0, 0, HEAP),
    ("add_reg", 2, 3, 0, 0),
    *(line for offset in range(0, INFO, 8) for line in [("load", 3, 2, offset, 0), ("store", 8, 3, offset, 0)]),
    ("add", 6, 0, 0, 8),
    ("ja", 0, 0, "next account", 0),
    "first seen",
    *(
        line
        for field, place in [(0, 8), (32, 40), (8, 72), (24, 88)]  # key, owner, lamports, data
        for line in [("mov_reg", 2, 6, 0, 0), ("add", 2, 0, 0, place), ("store", 8, 2, field, 0)]
    ),
    ("load", 3, 6, 80, 0),
    ("store", 8, 3, 16, 0),
    *(
        line
        for field, place in [(48, 1), (49, 2), (50, 3)]  # signs, is writable, is executable
        for line in [("load_byte", 4, 6, place, 0), ("store_byte", 8, 4, field, 0)]
    ),
    ("add_reg", 2, 3, 0, 0),
    ("add", 2, 0, 0, GROWTH + 7),
    ("and", 2, 0, 0, -8),
    ("load", 3, 2, 0, 0),
    ("store", 8, 3, 40, 0),  # rent epoch
    ("mov_reg", 6, 2, 0, 0),
    ("add", 6, 0, 0, 8),
    "next account",
    ("add", 8, 0, 0, INFO),
    ("add", 7, 0, 0, -1),
    ("ja", 0, 0, "account", 0),
    # Read the script, r6: r7 instructions are left.
    "script",
    ("address", 2, 0, 0, HEAP),
    ("load", 6, 2, 24, 0),
    ("load", 7, 6, 0, 0),
    ("add", 6, 0, 0, 8),
    # One signer, whose one seed is one byte: the bump, which stands in the script.
    ("address", 1, 0, 0, SEEDS),
    ("address", 2, 0, 0, SEEDS + 16),
    ("mov", 3, 0, 0, 1),
    ("store", 1, 2, 0, 0),
    ("store", 1, 3, 8, 0),
    ("store", 2, 6, 0, 0),
    ("store", 2, 3, 8, 0),
    ("add", 6, 0, 0, 8),
    "instruction",
    ("jeq", 7, 0, "end", 0),
    ("address", 1, 0, 0, INSTRUCTION),
    ("address", 3, 0, 0, METAS),
    ("address", 4, 0, 0, HEAP),
    ("load", 2, 6, 0, 0),
    ("mul", 2, 0, 0, INFO),
    ("add_reg", 2, 4, 0, 0),
    ("load", 2, 2, 0, 0),
    ("store", 1, 2, 0, 0),
    ("store", 1, 3, 8, 0),
    ("load", 8, 6, 8, 0),
    ("store", 1, 8, 16, 0),
    ("add", 6, 0, 0, 16),
    "meta",
    ("jeq", 8, 0, "data", 0),
    ("load", 2, 6, 0, 0),
    ("mul", 2, 0, 0, INFO),
    ("add_reg", 2, 4, 0, 0),
    ("load", 2, 2, 0, 0),
    ("store", 3, 2, 0, 0),
    ("load", 2, 6, 8, 0),
    ("store", 3, 2, 8, 0),
    ("add", 6, 0, 0, 16),
    ("add", 3, 0, 0, 16),
    ("add", 8, 0, 0, -1),
    ("ja", 0, 0, "meta", 0),
    "data",
    ("load", 2, 6, 0, 0),
    ("add", 6, 0, 0, 8),
    ("store", 1, 6, 24, 0),
    ("store", 1, 2, 32, 0),
    ("add", 2, 0, 0, 7),
    ("and", 2, 0, 0, -8),
    ("add_reg", 6, 2, 0, 0),
    ("mov_reg", 2, 4, 0, 0),
    ("mov_reg", 3, 9, 0, 0),
    ("address", 4, 0, 0, SEEDS),
    ("mov", 5, 0, 0, 1),
    ("invoke", 0, 0, 0, 0),
    ("jne", 0, 0, "failed", 0),
    ("add", 7, 0, 0, -1),
    ("ja", 0, 0, "instruction", 0),
    "end",
    ("mov", 0, 0, 0, 0),
    "failed",
    ("exit", 0, 0, 0, 0),
]


def program() -> bytes:
    """Return the program as the loader takes it."""
    code, invocation = _assemble()
    return _elf(code, invocation)


def _assemble() -> tuple[bytes, int]:
    """Return the machine code, and where in it the call stands that the loader has to fill in."""
    places, place = {}, 0
    for line in SOURCE:
        if isinstance(line, str):
            places[line] = place
        else:
            place += 2 if line[0] == "address" else 1
    code, invocation = b"", 0
    for line in SOURCE:
        if isinstance(line, str):
            continue
        name, destination, source, offset, number = line
        registers = destination | source << 4
        if name == "address":
            code += struct.pack("<BBhI", 0x18, registers, 0, number & 0xFFFFFFFF) + struct.pack("<II", 0, number >> 32)
        elif name == "invoke":
            invocation = len(code)
            code += struct.pack("<BBhi", CALL, 0x10, 0, -1)
        elif name in JUMPS:
            code += struct.pack("<BBhi", JUMPS[name], registers, places[offset] - len(code) // 8 - 1, number)
        else:
            code += struct.pack("<BBhi", OPERATIONS[name], registers, offset, number)
    return code, invocation


def _elf(code: bytes, invocation: int) -> bytes:
    """Wrap the code in the sections that the loader looks for, each at the address that is its place in the file."""
    strings = _padded(b"\0sol_invoke_signed_c\0")
    symbols = bytes(24) + struct.pack("<IBBHQQ", 1, 0x10, 0, 0, 0, 0)  # none, and the one that begins at 1
    relocation = struct.pack("<QII", ELF_HEADER + invocation, 10, 1)  # put the call of symbol 1 there
    at_symbols = ELF_HEADER + len(code)
    at_strings = at_symbols + len(symbols)
    at_relocation = at_strings + len(strings)
    dynamic = struct.pack("<12Q", 6, at_symbols, 5, at_strings, 17, at_relocation, 18, 16, 19, 16, 0, 0)
    # Name, type, flags, content, number of the section that it refers to, bytes of an entry.
    sections = [
        (b".text", 1, 6, code, 0, 0),
        (b".dynsym", 11, 2, symbols, 3, 24),
        (b".dynstr", 3, 2, strings, 0, 0),
        (b".rel.dyn", 9, 2, relocation, 2, 16),
        (b".dynamic", 6, 3, dynamic, 3, 16),
    ]
    names = _padded(b"\0" + b"".join(section[0] + b"\0" for section in sections) + b".names\0")
    sections.append((b".names", 3, 0, names, 0, 0))
    body, headers = b"", bytes(64)
    for name, kind, flags, content, link, entry in sections:
        at = ELF_HEADER + len(body)
        address = at if flags else 0
        headers += struct.pack(
            "<IIQQQQIIQQ", names.index(name), kind, flags, address, at, len(content), link, 0, 8, entry
        )
        body += content
    counts = (ELF_HEADER, 56, 0, 64, len(sections) + 1, len(sections))
    entry_point, at_headers = ELF_HEADER, ELF_HEADER + len(body)
    header = struct.pack("<HHIQQQI6H", 3, 247, 1, entry_point, 0, at_headers, 0, *counts)
    return b"\x7fELF\x02\x01\x01" + bytes(9) + header + body + headers


def _padded(content: bytes) -> bytes:
    return content + bytes(-len(content) % 8)
