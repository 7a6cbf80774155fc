"""Sends DICOM files with pynetdicom over several associations at once.

Prints a line an instance, `SOP_INSTANCE_UID STATUS` (hexadecimal), as soon as its response came, so that whoever reads
knows what was acknowledged at any moment. pynetdicom itself refuses a response with another message id than the
request's. Exit code 0 when all associations were released in order.
"""

import sys
import threading
from argparse import ArgumentParser

import pydicom
from pynetdicom import AE, build_context

parser = ArgumentParser()
parser.add_argument("port", type=int)
parser.add_argument("files", nargs="+")
parser.add_argument("--associations", type=int, default=1)
parser.add_argument("--hold", action="store_true", help="keep the association open until a line comes on stdin")
parser.add_argument("--calling-ae", default="PYNETDICOM")
parser.add_argument("--called-ae", default="TRIAGED")
arguments = parser.parse_args()

failed = threading.Event()
says = threading.Lock()


def say(*words):
    with says:
        print(*words, flush=True)


def send(files):
    objects = [pydicom.dcmread(file) for file in files]
    kinds = {(str(o.SOPClassUID), str(o.file_meta.TransferSyntaxUID)) for o in objects}
    ae = AE(ae_title=arguments.calling_ae)
    ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = 20
    association = ae.associate(
        "127.0.0.1",
        arguments.port,
        ae_title=arguments.called_ae,
        contexts=[build_context(*kind) for kind in sorted(kinds)],
    )
    if not association.is_established:
        say("not established")
        failed.set()
        return
    # pynetdicom 3.0.4: its reactor thread, woken late, may take a quick response off the queue as if it were a request
    # (Association._run_reactor sets _is_paused after the wait), and the sender waits for it in vain. It goes back.
    association._serve_request = lambda message, context: association.dimse.msg_queue.put((context, message))
    for number, one in enumerate(objects):
        try:
            status = association.send_c_store(one, msg_id=(7919 * number) % 65535 + 1)
        except (RuntimeError, ValueError) as error:
            say(one.SOPInstanceUID, "error", error)
            failed.set()
            continue
        if "Status" not in status:
            failed.set()
            return
        say(one.SOPInstanceUID, f"{status.Status:04X}", status.get("ErrorComment", ""))
    if arguments.hold:
        sys.stdin.readline()
    association.release()


parts = [arguments.files[i :: arguments.associations] for i in range(arguments.associations)]
threads = [threading.Thread(target=send, args=(part,)) for part in parts if part]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
sys.exit(1 if failed.is_set() else 0)
