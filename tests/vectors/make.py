#!/usr/bin/env python3
"""Writes the golden frames from the layout table of the protocol, independently of the Rust encoder."""

import hashlib
import pathlib
import struct
import uuid

HERE = pathlib.Path(__file__).parent
ID = uuid.UUID("00112233-4455-4677-8899-aabbccddeeff")
CREATED = 1_700_000_000_123


def frame(kind, payload, sequence=0, flags=0, payload_type=0, header_length=116, pad=b" ", digest=None,
          payload_length=None, extra=b""):
    """One line for each field: its name as a comment, then its bytes."""
    raw = ID.bytes
    return [
        ("HeaderLength", struct.pack(">I", header_length)),
        ("MessageType", kind.encode().ljust(32, pad)),
        ("SchemaVersion", struct.pack(">I", 1)),
        ("CreatedDate", struct.pack(">Q", CREATED)),
        ("SequenceNumber", struct.pack(">q", sequence)),
        ("Flags", struct.pack(">Q", flags)),
        ("MessageId, least significant half first", raw[8:] + raw[:8]),
        ("PayloadDigest", digest or hashlib.sha256(payload).digest()),
        ("PayloadType", struct.pack(">I", payload_type)),
        ("header bytes of a later version", extra),
        ("PayloadLength", payload_length or struct.pack(">I", len(payload))),
        ("Payload", payload),
    ]


ACK = (b'{"AcknowledgedMessageType":"output_stream_data","AcknowledgedMessageId":"' + str(ID).encode()
       + b'","AcknowledgedMessageSequenceNumber":17,"IsSequentialMessage":true}')
REQUEST = (b'{"AgentVersion":"3.3.0.0","RequestedClientActions":[{"ActionType":"SessionType","ActionParameters":'
           b'{"SessionType":"Port","Properties":{"portNumber":"22"}}}]}')
RESPONSE = (b'{"ClientVersion":"1.2.0.0","ProcessedClientActions":[{"ActionType":"SessionType","ActionStatus":1,'
            b'"ActionResult":null,"Error":""}],"Errors":null}')

VECTORS = {
    "input_stream_data": frame("input_stream_data", b"SSH-2.0-test\r\n", sequence=1, payload_type=1),
    "output_stream_data": frame("output_stream_data", bytes(range(256)), sequence=2**40 + 7, payload_type=1),
    "acknowledge": frame("acknowledge", ACK, flags=3),
    "handshake_request": frame("output_stream_data", REQUEST, flags=1, payload_type=5),
    "handshake_response": frame("input_stream_data", RESPONSE, payload_type=6),
    "handshake_complete": frame("output_stream_data", b'{"HandshakeTimeToComplete":41000000,"CustomerMessage":""}',
                                sequence=1, payload_type=7),
    "terminate_session": frame("input_stream_data", b"\0\0\0\2", sequence=9, payload_type=10),
    "channel_closed": frame("channel_closed", b'{"SchemaVersion":1,"Output":"timed out"}', pad=b"\0",
                            payload_type=261, digest=b"\xee" * 32, payload_length=b"\x28\0\0\0"),
    "pause_publication": frame("pause_publication", b"", digest=b"\xee" * 32, payload_length=b"\xff\xff\xff\xff"),
    "longer_header": frame("output_stream_data", b"later", payload_type=1, header_length=124, extra=b"\xaa" * 8),
    "wrong_digest": frame("output_stream_data", b"bent", payload_type=1, digest=b"\xee" * 32),
}

for name, fields in VECTORS.items():
    lines = [f"# {label}\n{data.hex()}\n" for label, data in fields if data]
    (HERE / f"{name}.hex").write_text("".join(lines))
