#!/usr/bin/env python3
"""A small world for a gateway: it runs in network and mount namespaces of its own (`unshare --mount --net`), where the
system's resolver asks a DNS server of ours and every address of this machine has a receiver.

    unshare --mount --net python3 tests/dns/world.py KERO FOLDER

Prints a line of JSON for every sample that the gateway was told to send, and one with the requests that arrived."""

import fcntl
import http.server
import json
import os
import socket
import struct
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request

KERO, FOLDER = sys.argv[1:]
KEY = "a-key-of-the-test-0123456789abcdef01234567"
API = "http://127.0.0.1:8080"
A, CNAME, AAAA = 1, 5, 28

# Answers by name and type, one list for each time that it is asked; the last is repeated. A time to live of nought.
RECORDS = {
    ("open.test", A): [[("open.test", CNAME, "there.test"), ("there.test", A, "127.0.0.2")]],
    ("plain.test", A): [[("plain.test", A, "127.0.0.1")]],
    ("alias.test", A): [[("alias.test", CNAME, "b.test"), ("b.test", CNAME, "c.test"), ("c.test", A, "127.0.0.1")]],
    ("alias6.test", AAAA): [[("alias6.test", CNAME, "d.test"), ("d.test", AAAA, "::1")]],
    ("metadata.test", A): [[("metadata.test", CNAME, "e.test"), ("e.test", A, "169.254.169.254")]],
    ("mixed.test", A): [[("mixed.test", A, "93.184.216.34")]],
    ("mixed.test", AAAA): [[("mixed.test", AAAA, "::1")]],
    ("rebind.test", A): [
        [("rebind.test", A, "127.0.0.2")],
        [("rebind.test", A, "127.0.0.1")],
        [("rebind.test", A, "127.0.0.2")],
    ],
}


def encoded(name):
    return b"".join(bytes([len(part)]) + part.encode() for part in name.split(".")) + b"\0"


def record(name, kind, value):
    if kind == CNAME:
        data = encoded(value)
    else:
        data = socket.inet_pton(socket.AF_INET if kind == A else socket.AF_INET6, value)
    return encoded(name) + struct.pack(">HHIH", kind, 1, 0, len(data)) + data


def serve_names(server):
    while True:
        query, client = server.recvfrom(2048)
        place, parts = 12, []
        while query[place]:
            parts.append(query[place + 1 : place + 1 + query[place]].decode().lower())
            place += 1 + query[place]
        name, kind = ".".join(parts), struct.unpack(">H", query[place + 1 : place + 3])[0]
        known = any(name == other for other, _ in RECORDS)
        lists = RECORDS.get((name, kind), [[]])
        found = lists.pop(0) if len(lists) > 1 else lists[0]
        head = query[:2] + struct.pack(">HHHHH", 0x8580 if known else 0x8583, 1, len(found), 0, 0)
        server.sendto(head + query[12 : place + 5] + b"".join(record(*one) for one in found), client)


arrived = []


class Receiver(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        arrived.append([self.headers["host"], self.connection.getsockname()[0]])
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


class Receivers(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6

    def server_bind(self):
        self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        super().server_bind()


def call(path, body=None):
    data = b"" if body is None else json.dumps(body).encode()
    headers = {"x-api-key": KEY, "content-type": "application/json"}
    request = urllib.request.Request(API + path, data, headers)
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)["data"]


def main():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        # SIOCSIFFLAGS: the loopback interface is up and running
        fcntl.ioctl(any_socket, 0x8914, struct.pack("16sH14s", b"lo", 0x41, b""))
    resolver = os.path.join(FOLDER, "resolv.conf")
    with open(resolver, "w", encoding="ascii") as file:
        file.write("nameserver 127.0.0.1\n")
    subprocess.run(["mount", "--bind", resolver, "/etc/resolv.conf"], check=True)
    names = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    names.bind(("127.0.0.1", 53))
    threading.Thread(target=serve_names, args=(names,), daemon=True).start()
    threading.Thread(target=Receivers(("::", 9000), Receiver).serve_forever, daemon=True).start()

    environment = {
        "PATH": os.environ["PATH"],
        "HOME": FOLDER,
        "KERO_LISTEN": "127.0.0.1:8080",
        "KERO_DATA_DIR": FOLDER,
        "KERO_API_KEY": KEY,
        "KERO_WHATSAPP__URL": "ws://127.0.0.1:9/ws/chat",
        "KERO_DELIVERY__ALLOW_NETWORKS": "127.0.0.2/32",
    }
    with open(os.path.join(FOLDER, "kero.log"), "wb") as log:
        kero = subprocess.Popen([KERO, "serve"], env=environment, stdout=log, stderr=log)
    try:
        for _ in range(300):
            try:
                urllib.request.urlopen(API + "/readyz", timeout=5).close()
                break
            except (urllib.error.URLError, ConnectionError):
                time.sleep(0.1)
        call("/instances", {"instance_id": "a"})
        for name in dict.fromkeys(name for name, _ in list(RECORDS)):
            made = call("/instances/a/endpoints", {"url": f"http://{name}:9000/"})
            for number in range(3):
                came = call(f"/instances/a/endpoints/{made['id']}/test")
                line = {"name": name, "try": number, "delivered": came["delivered"], "error": came.get("error")}
                print(json.dumps(line), flush=True)
        print(json.dumps({"arrived": arrived}), flush=True)
    finally:
        kero.kill()
        kero.wait()


main()
