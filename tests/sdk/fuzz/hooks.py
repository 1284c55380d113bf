"""What the fuzzing knows beyond the document: values of the formats that the document names, and an instance that is
paired with a simulated phone, so that not every send ends at "not paired"."""

import base64
import os
import uuid

import schemathesis
from hypothesis import strategies as st

PAIRED = os.environ["KERO_PAIRED"]
# What ends the pairing is tried on instances that the run makes itself.
ENDS = {"instance_delete", "instance_log_out", "instance_disconnect"}


def cursor(position: str) -> str:
    return base64.urlsafe_b64encode(position.encode()).decode().rstrip("=")


schemathesis.openapi.format(
    "whatsapp-address",
    st.sampled_from(
        ["+49 151 4000 601", "491514000601", "(49) 151-4000601", "491514000601@s.whatsapp.net", "123456789@lid"]
    ),
)
schemathesis.openapi.format("phone-number", st.sampled_from(["+49 151 4000 602", "491514000602"]))
schemathesis.openapi.format(
    "uri", st.sampled_from(["http://127.0.0.1:9/kero", "https://example.org/kero?x=1", "http://[::ffff:127.0.0.1]:9/"])
)
