#!/usr/bin/env python3
"""Makes folded stacks (inferno-collapse-perf) readable: generics and the frames of thread starts, closures and polling go.

    perf script -i perf.data | inferno-collapse-perf | scripts/shorten_stacks.py | inferno-flamegraph > profile.svg
"""

import collections
import re
import sys

PLUMBING = re.compile(
    r"^(clone3|start_thread|call_once|call_mut|do_call|do_catch|catch_unwind|poll|poll_inner|poll_future|with_mut|with|"
    r"try_with|enter|run|scope|thread_start|block_on|invoke|"
    r"\{closure(_env)?#\d+\}|\{impl#\d+\}|\{\{closure\}\}|\{\{vtable\.shim\}\}|\[unknown\]|0x[0-9a-f]+|"
    r"(core|alloc|std|std_detect)::.*|__rust.*|.*__rust_begin_short_backtrace.*|tokio::runtime::(task|blocking|context|coop).*|"
    r"entry_SYSCALL_64_after_hwframe|do_syscall_64|x64_sys_call|.*_impl|inner|budget|with_budget)$"
)


def shorten(frame):
    frame = re.sub(r"_\[k\]$", "", frame)
    before = None
    while before != frame:
        before, frame = frame, re.sub(r"<[^<>]*>", "", frame)
    frame = re.sub(r"^.* as (.*)>", r"\1", frame).replace("::{{closure}}", "").strip(":<> ")
    return "" if PLUMBING.match(frame) else frame[:60]


def main():
    stacks = collections.Counter()
    for line in sys.stdin:
        stack, count = line.rsplit(" ", 1)
        frames = []
        # Semicolons within a name are array types, of which only the generics are made.
        for frame in map(shorten, stack.split(";")):
            if frame and (not frames or frames[-1] != frame):
                frames.append(frame)
        stacks[";".join(frames)] += int(count)
    for stack, count in sorted(stacks.items()):
        print(stack, count)


main()
