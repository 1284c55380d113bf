"""The main job with the generated client: create, pair, send, send asynchronously, receive the acknowledgement by
webhook, read jobs page by page, handle a problem."""

import hashlib
import hmac
import json
import os
import threading
import time
import urllib.request
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TypeVar

import kero
from standardwebhooks import Webhook

T = TypeVar("T")

SIMULATOR = os.environ["SIMULATOR_URL"]
SECRET = "whsec_YSBzZWNyZXQgb2YgdGhpcyBwcm9ncmFtIQ=="
ID = "python"
CONTACT = "491514000201"

acks: list[kero.MessageAckEvent] = []


class Sink(BaseHTTPRequestHandler):
    """Receives events; refuses what is not signed."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        expected = hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()
        # the hex signature, and the Standard Webhooks' one with their own library
        genuine = hmac.compare_digest(expected, self.headers["X-Webhook-Signature"])
        Webhook(SECRET).verify(body, {name.lower(): value for name, value in self.headers.items()})
        if genuine and json.loads(body)["event"] == "message_ack":
            acks.append(kero.MessageAckEvent.from_json(body.decode()))  # type: ignore[arg-type]
        self.send_response(204 if genuine else 401)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def until(what: str, ask: Callable[[], T | None]) -> T:
    end = time.monotonic() + 30
    while time.monotonic() < end:
        if (found := ask()) is not None:
            return found
        time.sleep(0.05)
    raise TimeoutError(f"waited too long for {what}")


def simulator(path: str, body: str) -> None:
    urllib.request.urlopen(urllib.request.Request(SIMULATOR + path, data=body.encode(), method="POST"), timeout=10)


def problem(call: Callable[[], object]) -> kero.Problem:
    """The problem that a call ends in."""
    try:
        call()
    except kero.ApiException as failure:
        found = kero.Problem.from_json(failure.body or "")
        assert found is not None and found.status == failure.status
        return found
    raise AssertionError("it went well")


def main() -> None:
    sink = ThreadingHTTPServer(("127.0.0.1", 0), Sink)
    threading.Thread(target=sink.serve_forever, daemon=True).start()
    simulator("/admin/people", json.dumps({"phone": CONTACT, "name": "Ada"}))

    configuration = kero.Configuration(host=os.environ["KERO_URL"], api_key={"ApiKey": os.environ["KERO_KEY"]})
    with kero.ApiClient(configuration) as client:
        instances, jobs = kero.InstancesApi(client), kero.JobsApi(client)
        messages, pairing = kero.MessagesApi(client), kero.PairingApi(client)

        # create
        created = instances.instance_create(kero.CreateInstance(instance_id=ID, name="SDK"))
        assert created.data.status == kero.InstanceStatus.DISCONNECTED
        url = f"http://127.0.0.1:{sink.server_port}/"
        webhook = kero.PutWebhook(url=url, secret=SECRET, events=["message", "message_ack"])
        kero.WebhookApi(client).webhook_update(ID, webhook)

        # provoke a problem and read its code
        assert problem(lambda: instances.instance_create(kero.CreateInstance(instance_id=ID))).code == "instance-exists"
        early = kero.SendText(phone=CONTACT, message="too early")
        assert problem(lambda: messages.message_send_text(ID, early)).code.startswith("instance-not-")

        # pair
        instances.instance_connect(ID)
        code = pairing.qr_get(ID)
        simulator("/admin/mock-phone/scan-qr?phone=491514000200", code.code)
        until("the connection", lambda: True if instances.instance_status_get(ID).status == "connected" else None)

        # send, and send asynchronously
        sent = messages.message_send_text(ID, kero.SendText(phone=CONTACT, message="Hello"))
        assert sent.status == kero.SendStatus.SENT
        queued = []
        for n in range(5):
            text = kero.SendText(phone=CONTACT, message=f"Number {n}")
            answer = messages.message_send_text_with_http_info(
                ID, text, x_async="true", x_correlation_id=f"python-{n}", idempotency_key=f"python-{n}"
            )
            assert answer.status_code == 202
            queued.append(answer.data)

        # each ends in one acknowledgement, by webhook
        for result in queued:
            same = lambda: next((a for a in acks if a.data.correlation_id == result.correlation_id), None)
            ack = until("an acknowledgement", same)
            assert ack.data.status == kero.AckStatus.SENT and ack.data.message_id == result.message_id

        # jobs, page by page
        seen, cursor, pages = [], None, 0
        while True:
            page = jobs.job_list(ID, limit=2, cursor=cursor)
            seen.extend(page.data)
            pages += 1
            cursor = page.next_cursor
            if cursor is None:
                break
        assert len({job.id for job in seen}) == 6 and pages >= 3
        assert jobs.job_get(ID, "python-0").data.type == "text"
        assert problem(lambda: jobs.job_get(ID, "nobody")).code == "job-not-found"

        instances.instance_delete(ID)
    sink.shutdown()
    print(f"python: 6 messages sent, {len(acks)} acknowledgements verified, {pages} pages of jobs")


main()
