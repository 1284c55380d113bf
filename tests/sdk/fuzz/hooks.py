"""What the fuzzing knows beyond the document.

Values of the formats that the document names; an instance that is paired with a simulated phone and jobs that exist,
so that not every request ends at "not found"; and what no schema can say: that a cursor comes from the list it is
used on, that an idempotency key belongs to one request, and that a send can be planned for 90 days.
Only what is meant to be right is touched; wrong values stay as they were made.
"""

import os
import time
import uuid
from datetime import datetime, timedelta, timezone

import requests
import schemathesis
from hypothesis import strategies as st

PAIRED = os.environ["KERO_PAIRED"]
JOBS = os.environ["KERO_JOBS"].split()
PLUGINS = os.environ["KERO_PLUGINS"].split()
KEY = {"X-API-Key": os.environ["KERO_KEY"]}
# Most requests go to the paired instance, but not what ends its pairing.
ENDS = {"instance_delete", "instance_log_out", "instance_disconnect", "pair_code_create"}
# Stands for a cursor until the request is made.
CURSOR = "the cursor of this list"
cursors: dict[str, str | None] = {}
SCHEMAS = requests.get(os.environ["KERO_URL"] + "/openapi.json", timeout=20).json()["components"]["schemas"]

PHONES = ["+49 151 4000 601", "491514000601", "(49) 151-4000601"]
URLS = ["http://127.0.0.1:8099/kero", "https://example.org/kero?x=1", "http://[::ffff:127.0.0.1]:8098/"]
SECRET = "whsec_" + "c2VjcmV0" * 5
# all of one who is on WhatsApp: what WhatsApp refuses is answered 502, and rightly
ADDRESSES = [*PHONES, "491514000601@s.whatsapp.net", "491514000601:7@s.whatsapp.net", "491514000601@c.us"]

schemathesis.openapi.format("whatsapp-address", st.sampled_from(ADDRESSES))
schemathesis.openapi.format("phone-number", st.sampled_from(PHONES))
schemathesis.openapi.format("uri", st.sampled_from(URLS))
schemathesis.openapi.format("uri-or-empty", st.sampled_from([*URLS, ""]))
schemathesis.openapi.format("webhook-secret", st.sampled_from(["correct-horse-battery-staple", SECRET]))
schemathesis.openapi.format("cursor", st.just(CURSOR))


def cursor_of(case):
    """A real cursor of the list, as a first page with one row gives it; None when there is none."""
    path = case.formatted_path
    if path not in cursors:
        answer = requests.get(os.environ["KERO_URL"] + path, params={"limit": 1}, headers=KEY, timeout=20)
        cursors[path] = answer.json().get("next_cursor")
    return cursors[path]


def members(operation):
    """The members of an operation's body, by the document."""
    kinds = operation["requestBody"]["content"].values()
    name = next(iter(kinds))["schema"]["$ref"].rsplit("/", 1)[1]
    return set(SCHEMAS[name]["properties"])


def soon(value):
    """A time that a send can be planned for: the one that was made, unless it lies too far ahead."""
    limit = time.time() + 80 * 86_400
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return min(value, int(limit))
    if isinstance(value, str):
        try:
            far = datetime.fromisoformat(value).timestamp() > limit
        except (ValueError, OverflowError):
            far = True
        if far:
            return (datetime.now(timezone.utc) + timedelta(days=1)).isoformat()
    return value


def plugin_words(operation, body):
    """Objects whose members are the plugin's own, or the manifest's: those that fit the plugins of this run."""
    for name in ("grants", "config", "kv"):
        if isinstance(body.get(name), dict):
            body[name] = {}
    if operation == "plugin_test":
        body["event"] = {"event": "message", "data": {"text": "Hello"}}
        for name in ("event_id", "version", "request", "response", "http"):
            body.pop(name, None)


@schemathesis.hook
def before_call(context, case, kwargs):
    if case.meta is None or case.meta.generation.mode.is_negative:
        return
    operation = case.operation.definition.raw.get("operationId", "")
    path, headers = case.path_parameters or {}, case.headers
    # every other one, so that instances that are new, unpaired or unknown have their turn
    chosen = uuid.uuid5(uuid.NAMESPACE_OID, repr((operation, sorted(path.items())))).int % 2 == 0
    if "instance_id" in path and operation not in ENDS and chosen:
        path["instance_id"] = PAIRED
        if "correlation_id" in path:
            path["correlation_id"] = JOBS[len(str(path["correlation_id"])) % len(JOBS)]
    if "name" in path and operation.startswith("plugin_") and operation != "plugin_delete" and chosen:
        path["name"] = PLUGINS[len(str(path["name"])) % len(PLUGINS)]
        if "version" in path:
            path["version"] = str(1 + len(str(path["version"])) % 2)
    if case.query and case.query.get("cursor") == CURSOR:
        found = cursor_of(case)
        if found is None:
            del case.query["cursor"]
        else:
            case.query["cursor"] = found
    if operation == "event_list" and case.query:
        # which events are kept, and which kinds there are, only the gateway knows
        if "after" in case.query:
            case.query["after"] = 0
        if "events" in case.query:
            case.query["events"] = "message,message_ack"
    for name in ("Idempotency-Key", "X-Correlation-Id"):
        if headers and name in headers:
            headers[name] = str(uuid.uuid4())
    names = [parameter.name for parameter in case.operation.headers]
    if headers is not None and "X-Instance-Id" in names and not headers.get("X-Instance-Id"):
        # which of several instances is meant, only the caller knows
        headers["X-Instance-Id"] = PAIRED
    body = case.body
    if not isinstance(body, dict):
        return
    if operation == "plugin_upload":
        # what a manifest says, and what an artefact is, no schema can tell: one that comes with the gateway
        body.clear()
        body["bundled"] = ["redact", "evolution", "keyword-reply"][uuid.uuid4().int % 3]
        return
    if operation.startswith("plugin_"):
        plugin_words(operation, body)
        return
    if "endpoint_" in operation:
        # the settings of endpoints take no members but their own, which the document says in words only
        for name in set(body) - members(case.operation.definition.raw):
            del body[name]
    if isinstance(body.get("secret"), str):
        # its length counts in bytes, and what is behind whsec_ is base64
        body["secret"] = SECRET
    if "send_at" in body:
        body["send_at"] = soon(body["send_at"])
    if isinstance(body.get("phone"), (int, float)) and not isinstance(body["phone"], bool):
        body["phone"] = int(PHONES[1])  # one that is on WhatsApp
    if body.get("since") is not None:
        # a span must not end before it begins
        body["since"] = "2020-01-01T00:00:00Z"
        body.pop("until", None)
    if isinstance(body.get("headers"), dict):
        body["headers"] = {"X-Team": "shop"}  # not every text is a header's name
