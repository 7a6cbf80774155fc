"""A PACS with whims: takes C-STORE, and answers as it was told.

store_scp.py [--only CLASS] [--status HEX[,HEX…]] [--hang]
Prints its port, then a line for each object: SOP class, SOP instance, status.
--only: accepts presentation contexts of this SOP class alone. --status: answers, in turn; then success.
--hang: never answers a C-STORE.
"""

import argparse
import threading

from pynetdicom import AE, StoragePresentationContexts, VerificationPresentationContexts, evt

parser = argparse.ArgumentParser()
parser.add_argument("--only")
parser.add_argument("--status", default="")
parser.add_argument("--hang", action="store_true")
arguments = parser.parse_args()
statuses = [int(status, 16) for status in arguments.status.split(",") if status]


def store(event):
    if arguments.hang:
        threading.Event().wait()
    status = statuses.pop(0) if statuses else 0
    request = event.request
    print(request.AffectedSOPClassUID, request.AffectedSOPInstanceUID, f"{status:04X}", flush=True)
    return status


ae = AE("WHIMS")
for context in VerificationPresentationContexts + StoragePresentationContexts:
    if arguments.only in (None, context.abstract_syntax):
        ae.add_supported_context(context.abstract_syntax)
if "1.2.840.10008.5.1.4.1.1.88.34" == arguments.only or not arguments.only:
    ae.add_supported_context("1.2.840.10008.5.1.4.1.1.88.34")
server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, store)])
print(server.socket.getsockname()[1], flush=True)
threading.Event().wait()
