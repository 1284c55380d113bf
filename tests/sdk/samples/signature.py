"""Receives one signed event, and lets the README's two checks judge it, as it came and with one byte changed."""

import base64
import json
import os
import pathlib
import subprocess
import sys
import threading
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

WORK = pathlib.Path(sys.argv[1])
SECRET = "a secret of this test"
came = threading.Event()
delivery = {}


class Sink(BaseHTTPRequestHandler):
    def do_POST(self):
        delivery["body"] = self.rfile.read(int(self.headers["Content-Length"]))
        delivery["headers"] = self.headers
        self.send_response(204)
        self.end_headers()
        came.set()

    def log_message(self, *_):
        pass


def post(path, body, **headers):
    headers |= {"X-API-Key": os.environ["KERO_KEY"], "Content-Type": "application/json"}
    request = urllib.request.Request(os.environ["KERO_URL"] + path, json.dumps(body).encode(), headers)
    urllib.request.urlopen(request, timeout=20).close()


sink = ThreadingHTTPServer(("127.0.0.1", 0), Sink)
threading.Thread(target=sink.serve_forever, daemon=True).start()
url = f"http://127.0.0.1:{sink.server_port}/"
post("/instances/me/webhook", {"url": url, "secret": SECRET, "events": ["message_ack"]})
post("/instances/me/messages/text", {"phone": "491701234567", "message": "Signed"}, **{"X-Async": "true"})
assert came.wait(30), "no event came"
body, headers = delivery["body"], delivery["headers"]
wrong = body.replace(b"sent", b"SENT")

names = {}
exec((WORK / "signature.py").read_text(), names)
assert names["genuine"](body, headers, SECRET) and not names["genuine"](wrong, headers, SECRET)
assert not names["genuine"](body, headers, "another secret")

# Node gives header names in lower case
node = """
import { genuine } from "./signature.mjs";
const { body, wrong, headers, secret } = JSON.parse(process.argv[2]);
const of = (text) => Buffer.from(text, "base64");
const judged = [genuine(of(body), headers, secret), genuine(of(wrong), headers, secret),
  genuine(of(body), headers, "another"), genuine(of(body), {}, secret)];
console.log(JSON.stringify(judged));
"""
(WORK / "judge.mjs").write_text(node)
given = {
    "body": base64.b64encode(body).decode(),
    "wrong": base64.b64encode(wrong).decode(),
    "headers": {name.lower(): value for name, value in headers.items()},
    "secret": SECRET,
}
judged = subprocess.run(["node", str(WORK / "judge.mjs"), json.dumps(given)], capture_output=True, text=True, check=True)
assert json.loads(judged.stdout) == [True, False, False, False], judged.stdout
print("signature checks: 2 passed, 0 failed")
