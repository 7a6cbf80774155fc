"""What of `gpu/` can be tested without a card: python3 -m unittest discover gpu/tests"""

import os
import pathlib
import subprocess
import sys
import tempfile
import time
import unittest

GPU = pathlib.Path(__file__).resolve().parent.parent
sys.path[:0] = [str(GPU), str(GPU / "check")]

import bundle  # noqa: E402
import end_to_end  # noqa: E402
import goals  # noqa: E402
import limits  # noqa: E402
import model  # noqa: E402
import report  # noqa: E402
import surroundings  # noqa: E402
import training  # noqa: E402


class Folder(unittest.TestCase):
    def setUp(self):
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.folder = pathlib.Path(scratch.name)


class Limits(unittest.TestCase):
    def test_a_program_is_stopped_with_its_children_and_what_it_said_is_kept(self):
        # The child holds the pipe open: were it not killed too, this would wait for a minute.
        script = """echo '{"a": 1}'; sleep 60 & wait"""
        began = time.monotonic()
        with self.assertRaises(limits.Stopped) as caught:
            limits.run(["sh", "-c", script], 5)
        self.assertLess(time.monotonic() - began, 50)
        self.assertEqual(limits.lines_of(caught.exception.said + '{"cut'), [{"a": 1}])

    def test_a_program_that_fails_says_why(self):
        with self.assertRaisesRegex(limits.Stopped, "exit code 3: no such card"):
            limits.run(["sh", "-c", "echo no such card >&2; exit 3"], 20)

    def test_a_step_that_fails_ends_no_other_and_keeps_what_it_has(self):
        steps = limits.Steps(limits.Clock(60), say=lambda *a, **k: None)

        def half(seconds):
            error = limits.Stopped("too slow")
            error.partial = {"m11": 1}
            raise error

        self.assertIsNone(steps.step("a", 5, lambda seconds: 1 / 0))
        self.assertEqual(steps.step("b", 5, half), {"m11": 1})
        self.assertEqual(steps.step("c", 5, lambda seconds: seconds), 5)
        self.assertEqual([step["ok"] for step in steps.results.values()], [False, False, True])
        self.assertIn("ZeroDivisionError", steps.results["a"]["why"])

    def test_no_step_begins_when_the_time_of_all_is_over(self):
        steps = limits.Steps(limits.Clock(-1), say=lambda *a, **k: None)
        self.assertIsNone(steps.step("a", 5, lambda seconds: "ran"))
        self.assertIn("no time", steps.results["a"]["why"])


class Surroundings(Folder):
    def test_libraries_and_headers_are_found_in_wheels(self):
        for path in ("nvidia/cu13/lib/libcublas.so.13", "nvidia/cudnn/lib/libcudnn.so.9", "nvidia/cu13/include/cuda_runtime.h"):
            (self.folder / path).parent.mkdir(parents=True, exist_ok=True)
            (self.folder / path).touch()
        found = surroundings.library_folders([self.folder])
        self.assertEqual(found[:2], [self.folder / "nvidia/cu13/lib", self.folder / "nvidia/cudnn/lib"])
        variables = surroundings.environment([self.folder])
        self.assertIn(str(self.folder / "nvidia/cudnn/lib"), variables["LD_LIBRARY_PATH"].split(":"))
        if "CUDA_PATH" not in os.environ and not pathlib.Path("/usr/local/cuda").exists():
            self.assertEqual(variables["CUDA_PATH"], str(self.folder / "nvidia/cu13"))


class Bundle(Folder):
    def setUp(self):
        super().setUp()
        self.stage, self.out = self.folder / "stage", self.folder / "out"
        (self.stage / "bin").mkdir(parents=True)
        self.out.mkdir()
        # Bytes that no compression makes smaller, over several parts.
        self.content = os.urandom(300_000)
        (self.stage / "bin" / "program").write_bytes(self.content)
        (self.stage / "bin" / "program").chmod(0o755)
        before, bundle.PART = bundle.PART, 100_000
        self.addCleanup(lambda: setattr(bundle, "PART", before))
        self.parts = bundle.pack(self.stage, self.out)
        (self.out / "join.py").write_bytes((GPU / "join.py").read_bytes())

    def join(self):
        return subprocess.run([sys.executable, self.out / "join.py"], capture_output=True, text=True)

    def test_parts_become_the_bundle_again(self):
        self.assertGreaterEqual(len(self.parts), 4)
        self.assertTrue(all(part.stat().st_size <= 100_000 for part in self.parts))
        said = self.join()
        self.assertEqual(said.returncode, 0, said.stderr)
        program = self.out / "bundle" / "bin" / "program"
        self.assertEqual(program.read_bytes(), self.content)
        self.assertTrue(os.access(program, os.X_OK))
        self.assertEqual(self.join().returncode, 0, "a second time")

    def test_a_part_that_is_missing_or_changed_is_named_and_nothing_is_left(self):
        changed = bytearray(self.parts[1].read_bytes())
        changed[1000] ^= 1
        self.parts[1].write_bytes(changed)
        self.parts[2].unlink()
        said = self.join()
        self.assertEqual(said.returncode, 1)
        self.assertIn("part-02 is cut off or changed", said.stderr)
        self.assertIn("part-03 is missing", said.stderr)
        self.assertFalse((self.out / "bundle").exists())


class Results(unittest.TestCase):
    def sizes(self, *speeds):
        return [{"slices": slices, "ms": 1.0, "ms_95th": 1.0, "slices_a_second": speed} for slices, speed in speeds]

    def test_a_probability_that_is_no_number_differs_from_all(self):
        found = model.difference({"probabilities": [0.5, float("nan")]}, {"probabilities": [0.25, 0.1]})
        self.assertEqual((found["largest"], found["slices"]), (float("inf"), 2))

    def test_the_fastest_variant_is_the_one_of_that_batch(self):
        measured = {
            "plain": {"batch": 64, "slices_a_second": 90, "sizes": self.sizes((1, 50), (64, 100))},
            "pinned": {"batch": 64, "slices_a_second": 110, "sizes": self.sizes((1, 20), (64, 105))},
        }
        self.assertEqual(model.fastest(measured, 64), "pinned")
        self.assertEqual(model.fastest(measured, 1), "plain")
        self.assertIsNone(model.fastest({}, 1))

    def test_goals_are_met_missed_or_unknown(self):
        def met(found):
            return {goal["text"].split(":")[0]: goal["met"] for goal in goals.goals(found)}

        self.assertEqual(set(met({}).values()), {None})
        found = {
            "agreement with the processor": {"m11": {"largest": 2e-3}, "m11-fp16": {"largest": 2e-3}},
            "end to end": {"slices_a_second": 1900, "alone": 5000, "decoding": 1950, "share": 0.38},
            "onnx runtime m11": {"pinned": {"sizes": self.sizes((64, 100))}, "pinned, tf32": {"sizes": self.sizes((64, 300))}},
            "pytorch m11": [{"precision": "fp32", "way": "compiled", "batch": 64, "slices_a_second": 200}],
            "burn step m11": {"step_ms": 11.0},
            "pytorch step m11": [{"step_ms": 10.0}],
        }
        said = met(found)
        self.assertIs(said["m11"], True, "Burn's step; the later of two of that name")
        self.assertIs(said["m11-fp16"], True)
        # Decoding is the narrower way, and the node reaches 0.97 of it.
        self.assertIs(said["end to end at least 0.95 of decoding"], True)
        # TensorFloat-32 is no answer to a float32 peer.
        self.assertIs(said["m11 fp32"], False)
        parity = [goal for goal in goals.goals(found) if "probabilities" in goal["text"]]
        self.assertEqual([goal["met"] for goal in parity], [False, True])

    def test_losses_that_part_are_seen(self):
        falling = {"losses": [0.7, 0.5, 0.4]}
        self.assertTrue(training.alike({"losses": [0.7, 0.52, 0.42]}, falling)["alike"])
        self.assertFalse(training.alike({"losses": [0.7, 0.7, 0.7]}, falling)["alike"])
        self.assertFalse(training.alike({"losses": [0.7, 0.8, float("nan")]}, falling)["alike"])

    def test_the_page_says_what_failed_and_makes_nothing_up(self):
        steps = {"onnx runtime m11": {"ok": True, "found": {"plain": {"sizes": self.sizes((1, 812.4))}}},
                 "pytorch m11": {"ok": False, "why": "stopped at its limit of 80 s", "found": []}}
        results = {"card": {"name": "A card", "driver_version": "580"}, "device": "cuda", "steps": steps, "seconds": 12.0,
                   "goals": goals.goals({})}
        page = "\n".join(report.page(results))
        self.assertIn("A card, driver 580", page)
        self.assertIn("812", page)
        self.assertIn("pytorch m11: stopped at its limit of 80 s", page)
        self.assertIn("unknown", page)

    def test_times_of_the_database_are_read(self):
        self.assertAlmostEqual(
            end_to_end.moment("2026-01-01T00:00:01.250Z") - end_to_end.moment("2026-01-01T00:00:00.000Z"), 1.25)


if __name__ == "__main__":
    unittest.main()
