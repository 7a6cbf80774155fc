# The commands of the project. `make` alone lists them.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
# One recipe at a time: cargo uses every core by itself.
.NOTPARALLEL:

CARGO ?= cargo
CARGO_TARGET_DIR ?= target
RELEASE = $(CARGO_TARGET_DIR)/release
ONNXRUNTIME = $(RELEASE)/lib
GPU_TARGET ?= $(CARGO_TARGET_DIR)/gpu

RECIPE ?= m11

PREFIX ?= /usr/local
SYSCONFDIR ?= /etc
UNITDIR ?= $(PREFIX)/lib/systemd/system
DESTDIR ?=

.PHONY: help
help: ## List these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-17s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: build
build: deps onnxruntime-keep ## Build target/release/triaged, ready to run: ONNX Runtime and the model beside it
	@# --workspace: the same crate features as in `make test`, so that hardly anything is compiled twice.
	$(CARGO) build --release --locked --workspace --bin triaged
	@$(MAKE) --no-print-directory models-link

.PHONY: run
run: build ## Build and start the node on its defaults (ARGS="--config FILE" for others)
	exec $(RELEASE)/triaged serve $(ARGS)

.PHONY: demo
demo: build ## Push a healthy and a bleeding synthetic head CT through a node and show what it says
	scripts/demo.py $(RELEASE)/triaged

.PHONY: screenshots
screenshots: build test-deps ## Draw every page from the demo's patients into docs/pictures
	.venv/bin/python scripts/screenshots.py $(RELEASE)/triaged docs/pictures

.PHONY: test
test: deps test-deps onnxruntime-keep models-link pretrained-try ## Install what the tests need and run them all
	ORT_DYLIB_PATH="$(abspath $(ONNXRUNTIME))/libonnxruntime.so" scripts/test.sh

.PHONY: lint
lint: deps ## Check formatting, lints and the documentation's links
	$(CARGO) fmt --all --check
	$(CARGO) clippy --release --locked --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --release --locked --workspace --no-deps --document-private-items

# Before anything is installed or compiled.
.PHONY: train-data
train-data:
	@test -n "$(DATA)" || { echo "make train needs DATA=FOLDER (RSNA 2019 layout: stage_2_train.csv and its images)" >&2; exit 2; }
	@test -f "$(DATA)/stage_2_train.csv" || { echo "make train: there is no $(DATA)/stage_2_train.csv" >&2; exit 2; }
	@test -d "$(DATA)/stage_2_train" || { echo "make train: there is no folder $(DATA)/stage_2_train" >&2; exit 2; }

.PHONY: train
train: train-data deps onnxruntime-keep $(if $(filter m11 m12,$(RECIPE)),pretrained) ## Train the model: make train DATA=folder-in-RSNA-layout [RECIPE=m12|m11|m10|FILE OUT=folder ARGS=...]
	$(CARGO) build --release --locked --workspace --bin triaged-training
	ORT_DYLIB_PATH="$(abspath $(ONNXRUNTIME))/libonnxruntime.so" $(RELEASE)/triaged-training \
		train --recipe "$(RECIPE)" --data "$(DATA)" $(if $(OUT),--out "$(OUT)") $(ARGS)

.PHONY: pretrained
pretrained: deps ## Fetch the pretrained weights that the trainings of m11 and m12 begin with (16 MB)
	@scripts/pretrained.py

# For tests that need them; without a network those are skipped.
.PHONY: pretrained-try
pretrained-try: deps
	@scripts/pretrained.py --if-online

.PHONY: onnxruntime
onnxruntime: deps ## Use ONNX Runtime's CPU build (what `make build` does by itself)
	@scripts/onnxruntime.py cpu "$(ONNXRUNTIME)"

.PHONY: onnxruntime-cuda
onnxruntime-cuda: deps ## Use ONNX Runtime's GPU build: CUDA and TensorRT (256 MB; x86_64)
	@scripts/onnxruntime.py cuda "$(ONNXRUNTIME)"

# Keeps the build that was chosen before.
.PHONY: onnxruntime-keep
onnxruntime-keep: deps
	@scripts/onnxruntime.py keep "$(ONNXRUNTIME)"

# The program looks for models/m11.json beside itself; a link, so that a newly trained model is used at once.
.PHONY: models-link
models-link:
	@mkdir -p "$(RELEASE)"
	@ln -sfnr models "$(RELEASE)/models"

# A build of its own: Burn's CUDA backend has other features. Compiling it needs no card; CUDA 13.0 is the oldest that it
# may then meet, whatever the newest is that its bindings know.
.PHONY: gpu-bundle
gpu-bundle: deps ## Pack what a machine with an NVIDIA card and no network needs into gpu-bundle/ (see docs/gpu.md)
	CUDARC_CUDA_VERSION=13000 $(CARGO) build --release --locked --workspace --bin triaged --bin triaged-training \
		--features triaged-training/cuda --target-dir "$(GPU_TARGET)"
	@scripts/onnxruntime.py cuda "$(GPU_TARGET)/onnxruntime"
	@python=.venv/bin/python; [[ -x $$python ]] || python=python3; \
		"$$python" gpu/bundle.py --programs "$(GPU_TARGET)/release" --onnxruntime "$(GPU_TARGET)/onnxruntime" \
		--real ../shared/data/ct-ich --real ../shared/data/ge-head --out gpu-bundle

.PHONY: gpu-check
gpu-check: ## On a machine with an NVIDIA card: put gpu-bundle/ together and measure everything (8 minutes)
	cd gpu-bundle && python3 join.py && python3 bundle/gpu-check

.PHONY: deps
deps: ## Install the system packages that building needs, where missing
	@scripts/deps.sh build

.PHONY: test-deps
test-deps: deps ## Install the DICOM peers and Python packages that testing needs, where missing
	@scripts/deps.sh test
	@scripts/python-tools.sh tests/requirements.txt .venv

# What the benchmarks compare with, beside the DICOM peers of `make test`.
.PHONY: bench-deps
bench-deps: test-deps
	@scripts/python-tools.sh benches/requirements.txt .venv-bench
	@test -x .cache/bench/bin/dicom-storescp -a -x .cache/bench/bin/dicom-storescu || { \
		echo "bench: building dicom-rs's storescp and storescu into .cache/bench"; \
		$(CARGO) install --quiet --locked --root .cache/bench dicom-storescp@0.10.1 dicom-storescu@0.10.1 || \
		echo "bench: they do not build here: the benchmarks leave them out"; }

.PHONY: bench
bench: build bench-deps ## Measure the node beside its peers and each stage alone; writes benches/results.md (ARGS="--only ingest")
	PYTHONPATH=benches:tests/peers .venv-bench/bin/python -m side_by_side --program $(RELEASE)/triaged $(ARGS)
	@$(MAKE) --no-print-directory bench-stages

FUZZ_SECONDS ?= 1800
FUZZ_TARGETS = pdu command_set data_set pixels decoder_answers configuration model_card http webhook_reply notification_template provider
# Under AddressSanitizer: Rust by cargo-fuzz itself, the decoders in C and C++ by these flags.
FUZZ_FLAGS = CFLAGS="-fsanitize=address -g1" CXXFLAGS="-fsanitize=address -g1"
# SIGPIPE is ignored as in any Rust program; libFuzzer's main function does not do so by itself.
.PHONY: fuzz
fuzz: deps ## Fuzz each entry of untrusted bytes for FUZZ_SECONDS=1800 (needs a nightly compiler and cargo-fuzz)
	@cargo fuzz --version >/dev/null 2>&1 || { echo "make fuzz: cargo install cargo-fuzz, rustup toolchain install nightly" >&2; exit 2; }
	trap '' PIPE; for target in $(FUZZ_TARGETS); do \
		mkdir -p fuzz/corpus/$$target; \
		$(FUZZ_FLAGS) cargo +nightly fuzz run $$target fuzz/corpus/$$target fuzz/seeds/$$target -- -max_total_time=$(FUZZ_SECONDS) -timeout=60 -rss_limit_mb=4096; \
	done

.PHONY: sbom
sbom: deps ## Write the software bill of materials of the program (CycloneDX) to triaged.cdx.json
	@scripts/sbom.py triaged.cdx.json

.PHONY: bench-stages
bench-stages: deps onnxruntime-keep models-link ## Measure the stages alone: PDUs, commands, decoding, transform, batches, ledger
	ORT_DYLIB_PATH="$(abspath $(ONNXRUNTIME))/libonnxruntime.so" $(CARGO) bench --locked --workspace --bench stages $(if $(STAGE),-- $(STAGE))

.PHONY: install
install: ## Install what `make build` built (DESTDIR, PREFIX=/usr/local, SYSCONFDIR=/etc)
	@test -x $(RELEASE)/triaged -a -s $(ONNXRUNTIME)/libonnxruntime.so || { echo "run 'make build' first" >&2; exit 1; }
	install -D -m 755 $(RELEASE)/triaged "$(DESTDIR)$(PREFIX)/bin/triaged"
	install -d "$(DESTDIR)$(PREFIX)/lib/triaged" "$(DESTDIR)$(PREFIX)/share/triaged/models" \
		"$(DESTDIR)$(PREFIX)/share/doc/triaged" "$(DESTDIR)$(PREFIX)/share/bash-completion/completions" \
		"$(DESTDIR)$(PREFIX)/share/zsh/site-functions" "$(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d"
	$(RELEASE)/triaged completions bash > "$(DESTDIR)$(PREFIX)/share/bash-completion/completions/triaged"
	$(RELEASE)/triaged completions zsh > "$(DESTDIR)$(PREFIX)/share/zsh/site-functions/_triaged"
	$(RELEASE)/triaged completions fish > "$(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/triaged.fish"
	$(RELEASE)/triaged man --out "$(DESTDIR)$(PREFIX)/share/man/man1"
	install -m 644 $(ONNXRUNTIME)/libonnxruntime*.so "$(DESTDIR)$(PREFIX)/lib/triaged/"
	install -m 644 models/* "$(DESTDIR)$(PREFIX)/share/triaged/models/"
	install -m 644 LICENSE-APACHE LICENSE-MIT NOTICE $(ONNXRUNTIME)/onnxruntime-* "$(DESTDIR)$(PREFIX)/share/doc/triaged/"
	install -m 644 systemd/cuda.conf "$(DESTDIR)$(PREFIX)/share/doc/triaged/"
	install -d "$(DESTDIR)$(UNITDIR)" "$(DESTDIR)$(SYSCONFDIR)/triaged"
	sed 's|/usr/bin/triaged|$(PREFIX)/bin/triaged|; s|/etc/triaged|$(SYSCONFDIR)/triaged|' systemd/triaged.service \
		> "$(DESTDIR)$(UNITDIR)/triaged.service"
	sed 's|/usr/share/doc|$(PREFIX)/share/doc|' systemd/triaged-failed.service > "$(DESTDIR)$(UNITDIR)/triaged-failed.service"
	install -m 644 docs/operations.md "$(DESTDIR)$(PREFIX)/share/doc/triaged/"
	install -D -m 644 systemd/triaged.sysusers "$(DESTDIR)$(PREFIX)/lib/sysusers.d/triaged.conf"
	install -D -m 644 systemd/triaged.tmpfiles "$(DESTDIR)$(PREFIX)/lib/tmpfiles.d/triaged.conf"
	@# A site's settings are never overwritten: a newer file is laid beside them.
	config="$(DESTDIR)$(SYSCONFDIR)/triaged/triaged.toml"; [[ ! -e $$config ]] || config+=.new; \
		sed 's|^data_dir = .*|data_dir = "/var/lib/triaged"|' conf/triaged.toml > "$$config"
ifeq ($(DESTDIR),)
	@echo "Now: systemd-sysusers && systemd-tmpfiles --create && systemctl daemon-reload && systemctl enable --now triaged"
endif

.PHONY: clean
clean: ## Remove build outputs (.cache with ONNX Runtime, .venv and var stay)
	$(CARGO) clean
