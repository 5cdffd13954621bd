"""Receives the messages of sd_notify(3) at a Unix socket, as systemd does, and prints the variables of each on a line."""
import os
import socket
import sys

receiver = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
receiver.bind(sys.argv[1])
print("ready", flush=True)
while True:
    message, ancillary, _, _ = receiver.recvmsg(65536, socket.CMSG_SPACE(16))
    for level, kind, data in ancillary:
        if kind == socket.SCM_RIGHTS:
            # sd_notify_barrier(3): the sender waits until it is closed.
            os.close(int.from_bytes(data[:4], sys.byteorder))
    text = message.decode()
    if text.strip() != "BARRIER=1":
        print(" ".join(text.split("\n")), flush=True)
