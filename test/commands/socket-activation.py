"""Listens at a free port of loopback, as systemd does for a .socket unit, and starts the program with that socket, again each time that it ends with 0.

Usage: socket-activation.py NAME COMMAND...   MQWAY_HTTP_PORT=PORT is in its environment; the port and the ids of its processes are printed.
"""
import os
import signal
import socket
import sys

name, command = sys.argv[1], sys.argv[2:]
listener = socket.socket()
listener.bind(("127.0.0.1", 0))
listener.listen(1024)
port = listener.getsockname()[1]
print(port, flush=True)
while True:
    child = os.fork()
    if child == 0:
        os.dup2(listener.fileno(), 3)
        os.set_inheritable(3, True)
        own = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1", "LISTEN_FDNAMES": name, "MQWAY_HTTP_PORT": str(port)}
        os.execvpe(command[0], command, {**os.environ, **own})
    print(child, flush=True)
    signal.signal(signal.SIGTERM, lambda *_: (os.kill(child, signal.SIGKILL), os._exit(0)))
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    print("exit", code, flush=True)
    if code != 0:
        sys.exit(code)
