"""Who is at the other end of a Unix socket: Linux tells it by netlink alone."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterable
from pathlib import Path

_SOCK_DIAG_BY_FAMILY, _REQUEST_DUMP, _DONE = 20, 0x301, 3
_SHOW_PEER, _PEER = 4, 2


def unix_peers() -> dict[int, int]:
    """Each connected Unix socket's inode with that of its other end."""
    request = struct.pack("=BBHIIIII", socket.AF_UNIX, 0, 0, 0xFFFFFFFF, 0, _SHOW_PEER, 0, 0)
    header = struct.pack("=IHHII", 16 + len(request), _SOCK_DIAG_BY_FAMILY, _REQUEST_DUMP, 1, 0)
    peers = {}
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 4) as netlink:  # NETLINK_SOCK_DIAG
        netlink.sendall(header + request)
        while True:
            received = netlink.recv(1 << 18)
            while received:
                length, kind = struct.unpack_from("=IH", received)
                if kind == _DONE:
                    return peers
                message, received = received[16:length], received[(length + 3) & ~3 :]
                (inode,) = struct.unpack_from("=I", message, 4)
                attributes = message[16:]
                while len(attributes) >= 4:
                    size, name = struct.unpack_from("=HH", attributes)
                    if name == _PEER:
                        (peers[inode],) = struct.unpack_from("=I", attributes, 4)
                    attributes = attributes[(size + 3) & ~3 :]


def socket_inodes(pid: int) -> set[int]:
    """The sockets that a process has open; none of one that has ended."""
    found = set()
    try:
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            target = os.readlink(entry)
            if target.startswith("socket:["):
                found.add(int(target[8:-1]))
    except (FileNotFoundError, ProcessLookupError):
        pass
    return found


def clients_of(servers: Iterable[int], processes: Iterable[int]) -> dict[int, int]:
    """For each server process that one of `processes` is connected to: which of them."""
    peers = unix_peers()
    owners = {inode: pid for pid in processes for inode in socket_inodes(pid)}
    return {
        server: owners[peers[inode]]
        for server in servers
        for inode in socket_inodes(server)
        if inode in peers and peers[inode] in owners
    }
