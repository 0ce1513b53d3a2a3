# The front door. `make test` sets up .venv from the pinned constraints and runs what belongs to every change.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UV := $(shell command -v uv 2>/dev/null)
STAMP := $(VENV)/.dev-ready
DEMO_STAMP := $(VENV)/.demo-ready

# Modules are compiled once, those of a worker right after the install, and not at every start: that would cost it two seconds.
unexport PYTHONDONTWRITEBYTECODE
A_WORKERS := streamml.ops.run, streamml.adapters.models.onnx, streamml.adapters.redis.store, onnxruntime, pyarrow.parquet
TORCH := .venv-torch
TORCH_STAMP := $(TORCH)/.ready
PEERS := .venv-peers
PEER_STAMPS := $(patsubst loadtests/peers/requirements/%.txt,$(PEERS)/%/.ready,$(wildcard loadtests/peers/requirements/*.txt))

.PHONY: demo bench bench-gpu bench-peers chaos rehearsal test test-torch mistakes lint types layers check clean

# $(1): constraints file
define install
$(if $(UV),\
	$(UV) venv --quiet --allow-existing --python $(PYTHON) $(VENV) && \
	$(UV) pip install --quiet --python $(BIN)/python --require-hashes -r $(1) && \
	$(UV) pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation -e . ,\
	{ $(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv $(VENV); } && \
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $(1) && \
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e . ) && \
	$(BIN)/python -c "import $(A_WORKERS)"
endef

$(DEMO_STAMP): constraints/demo.txt pyproject.toml
	@echo "Setting up $(VENV): about 55 packages, 290 MB to download at most (a Java runtime is 104 MB of it), pinned with hashes in constraints/demo.txt" >&2
	@$(call install,constraints/demo.txt)
	@touch $@

$(STAMP): constraints/dev.txt pyproject.toml
	@echo "Setting up $(VENV): about 80 packages, 360 MB to download at most, pinned with hashes in constraints/dev.txt" >&2
	@$(call install,constraints/dev.txt)
	@touch $@

# The whole journey on real Kafka and Redis; ARGS="--events 20000 --json" ends by itself.
demo: $(DEMO_STAMP)
	@$(BIN)/streamml demo $(ARGS)

# A worker next to a bare client loop and a hand-written one, in one run; about eleven minutes.
bench: $(DEMO_STAMP)
	@$(BIN)/streamml bench --out loadtests/results/bench.json $(ARGS)

# The same job as other frameworks do it, beside ours; about ten minutes. ARGS="--only pathway,bytewax --rounds 1" narrows it.
bench-peers: $(DEMO_STAMP) $(PEER_STAMPS)
	@$(BIN)/python -m loadtests.peers $(ARGS)

$(PEERS)/%/.ready: loadtests/peers/requirements/%.txt
	@echo "Setting up $(@D): $$(grep -c == $<) packages to download, pinned in $<; all environments of peers together take 2 GB" >&2
	@$(if $(UV),\
		$(UV) venv --quiet --allow-existing --python $(PYTHON) $(@D) && $(UV) pip sync --quiet --python $(@D)/bin/python $<,\
		{ test -x $(@D)/bin/python || $(PYTHON) -m venv $(@D); } && \
		$(@D)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r $<)
	@touch $@

# Workers under faults, about four minutes; ARGS="--faults kill,broker --seed 7" narrows it. See docs/chaos.md.
chaos: $(DEMO_STAMP)
	@$(BIN)/python -m loadtests.faults $(ARGS)

# A wrong feature load from going live to the published corrections, about two minutes. See docs/guide/incident.md.
rehearsal: $(DEMO_STAMP)
	@$(BIN)/python -m loadtests.rehearsal $(ARGS)

# Plants mistakes into a copy of the tree, one by one, and sees a named test fail for each; some minutes. ARGS="--only epoch".
mistakes: $(STAMP)
	$(BIN)/python -m tests.planted $(ARGS)

# Three at a time on two cores, as most of them wait for something; ARGS="-n 0" for one. Who runs with whom: tests/conftest.py.
# A process that is lost is not replaced: its tests fail by name, where xdist would hang over another one.
test: $(STAMP)
	$(BIN)/python -m pytest -n 3 --dist loadfile --max-worker-restart 0 $(ARGS)

# What `make test` leaves out, as PyTorch is large.
$(TORCH_STAMP): constraints/dev.txt pyproject.toml
	@echo "Setting up $(TORCH): PyTorch and the packages of $(VENV); about 3 GB to download on Linux x86, where PyTorch brings CUDA" >&2
	@test -x $(TORCH)/bin/python || $(PYTHON) -m venv $(TORCH)
	@$(TORCH)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r constraints/dev.txt
	@$(TORCH)/bin/python -m pip install --quiet --disable-pip-version-check --no-build-isolation -e ".[torch]"
	@touch $@

# Networks on a GPU, driven by the real engine without a broker; ARGS=--small is for two CPU cores and takes two minutes.
bench-gpu: $(TORCH_STAMP)
	$(TORCH)/bin/python -m loadtests.gpu $(ARGS)

test-torch: $(TORCH_STAMP)
	$(TORCH)/bin/python -m pytest tests/conformance/test_torch_models.py $(ARGS)

lint: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(STAMP)
	$(BIN)/mypy

layers: $(STAMP)
	$(BIN)/lint-imports

check: lint types layers

clean:
	rm -rf $(VENV) $(TORCH) $(PEERS) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
