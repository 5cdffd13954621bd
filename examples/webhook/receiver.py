#!/usr/bin/env python3
"""Receives the calls of a webhook with nothing but Python: checks their signatures, and prints each event once. GET shows the last events.

    python3 examples/webhook/receiver.py [webhook.secret] [9000]
"""

import base64
import hashlib
import hmac
import json
import sys
import threading
import time
from collections import deque
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

given = dict(enumerate(sys.argv))
with open(given.get(1, "webhook.secret")) as file:
    secret = file.readline().strip()
key = base64.b64decode(secret.removeprefix("whsec_"))

# Seconds that the clocks of both sides may differ, and that a call may take: older ones may be repeated by somebody else.
TOLERANCE = 300
MAX_BODY = 8 * 1024**2

# The ids of the last calls: a call comes again if its response was lost.
seen = deque(maxlen=1000)
last = deque(maxlen=100)
lock = threading.Lock()


def is_signed(headers, body):
    name, timestamp = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    if not timestamp.isascii() or not timestamp.isdigit() or abs(time.time() - int(timestamp)) > TOLERANCE:
        return False
    digest = hmac.new(key, f"{name}.{timestamp}.".encode() + body, hashlib.sha256).digest()
    expected = "v1," + base64.b64encode(digest).decode()
    # There are two while the secret changes.
    signatures = headers.get("webhook-signature", "").split(" ")
    return any(hmac.compare_digest(signature.encode(), expected.encode()) for signature in signatures)


def take(name, call):
    """Stores the events: only then may the call be answered."""
    with lock:
        if name in seen:
            return
        seen.append(name)
        if call.get("dropped"):
            print(call["dropped"], "events are only in the dead-letter log", flush=True)
        for event in call["events"]:
            what = event.get("payload", event.get("payloadBase64", event.get("text", "")))
            print(event.get("topic", event.get("event")), what, flush=True)
            last.append(event)


class Receiver(BaseHTTPRequestHandler):
    # A connection that says nothing has no thread for ever.
    timeout = 30

    def answer(self, status, body=b""):
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        with lock:
            events = list(last)
        self.answer(200, json.dumps(events).encode())

    def do_POST(self):
        length = self.headers.get("content-length", "")
        if not length.isdigit() or int(length) > MAX_BODY:
            return self.answer(413)
        body = self.rfile.read(int(length))
        if not is_signed(self.headers, body):
            return self.answer(401)
        take(self.headers["webhook-id"], json.loads(body))
        self.answer(204)

    def log_message(self, *_):
        pass


server = ThreadingHTTPServer(("127.0.0.1", int(given.get(2, 9000))), Receiver)
print(f"http://127.0.0.1:{server.server_port}/hook", flush=True)
server.serve_forever()
